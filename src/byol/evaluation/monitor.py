"""Numbers that answer "is it working?" while training runs."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.data.images import Subset
from byol.data.masks import PixelClasses
from byol.evaluation.dense_task import check_masks, classes_in
from byol.evaluation.features import extract
from byol.evaluation.knn import TEMPERATURE, default_neighbours, knn_scores
from byol.evaluation.patch_knn import patch_knn
from byol.evaluation.pixel_metrics import mean_iou
from byol.evaluation.problem import accuracy
from byol.randomness import derived_generator
from byol.types import ImageSet

_IMAGES, _MASKED_IMAGES = 10_000, 500  # of each set
_CELLS = 10_000


def images_measured(train: ImageSet, holdout: ImageSet) -> int:
    """Return how many images pass through the network for one measurement beside the training."""
    limit = _MASKED_IMAGES if train.labels is None else _IMAGES
    return min(len(train), limit) + min(len(holdout), limit)


def holdout_accuracies(
    backbone: nn.Module,
    preprocess: Preprocess,
    train_images: ImageSet,
    holdout: ImageSet,
    probe: nn.Module | None = None,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> dict[str, float]:
    """Return the accuracies 0-1 on a labelled hold-out: of kNN ("knn"), and of an online probe ("online").

    Of each set at most 10,000 images are used, the same random ones every time.
    """
    assert train_images.labels is not None
    bank_images, holdout = _at_most(train_images, _IMAGES), _at_most(holdout, _IMAGES)
    assert holdout.labels is not None
    bank = extract(backbone, preprocess, bank_images, device=device, num_workers=num_workers)
    held = extract(backbone, preprocess, holdout, device=device, num_workers=num_workers)
    assert bank.labels is not None
    queries = held.vectors.to(device)
    k = default_neighbours(len(bank_images))
    num_classes = 1 + int(max(train_images.labels.max(), holdout.labels.max()))
    scores = knn_scores(bank.vectors.to(device), bank.labels, queries, k, TEMPERATURE, num_classes)
    found = {"knn": accuracy(scores.cpu(), holdout.labels)}
    if probe is not None:
        with torch.no_grad():
            found["online"] = accuracy(probe(queries), holdout.labels)
    return found


@dataclass(frozen=True)
class PatchMonitor:
    """Measures `patch_knn` on a hold-out with masks, on the same random images every time."""

    train: ImageSet
    holdout: ImageSet
    classes: PixelClasses

    @classmethod
    def of(cls, train: ImageSet, holdout: ImageSet, data: str) -> Self:
        """Take at most 500 images of each set, and check all their masks.

        Args:
            train: with masks, as the hold-out.
            holdout: what is scored.
            data: the source's name, which tells the classes of a well-known set.

        Raises:
            UserError: as `check_masks`.
        """
        train, holdout = _at_most(train, _MASKED_IMAGES), _at_most(holdout, _MASKED_IMAGES)
        classes = classes_in(data, (train, holdout))
        for name, images in (("train", train), ("holdout", holdout)):
            check_masks(images, classes, f"{name} masks of {data}")
        return cls(train, holdout, classes)

    def __call__(
        self, backbone: Backbone, device: torch.device | str = "cpu", num_workers: int = 0
    ) -> dict[str, float]:
        """Return the mean IoU 0-1 ("patch_knn") of at most 10,000 cells of the maps of each set."""
        cells = {"bank": _CELLS, "queries": _CELLS}
        found, _ = patch_knn(
            backbone, self.train, self.holdout, self.classes, **cells, device=device, num_workers=num_workers
        )
        return {"patch_knn": mean_iou(found)}


def _at_most(images: ImageSet, limit: int) -> ImageSet:
    if len(images) <= limit:
        return images
    order = torch.randperm(len(images), generator=derived_generator(0))
    return Subset(images, order[:limit].sort().values)


def std_of_normalized(projections: Tensor) -> float:
    """Return the mean over dimensions of the standard deviation of normalised vectors [N,D].

    Near 1/sqrt(D) where they are spread over the sphere, 0 where they have collapsed to one point
    (SimSiam, arXiv 2011.10566, section 4.1).
    """
    return float(F.normalize(projections.float()).std(dim=0, correction=0).mean())


def effective_rank(vectors: Tensor) -> float:
    """Return exp of the entropy of the normalised singular values of vectors [N,D]: 1..min(N,D).

    As in RankMe (arXiv 2210.02885), after Roy and Vetterli 2007. The vectors are not centred. All
    zeros: 0. Not finite: nan.
    """
    # Not every accelerator has double precision, and none is quick at this.
    vectors = vectors.detach().cpu().double()
    if not vectors.isfinite().all():
        return float("nan")
    # The squares of the singular values: of the smaller product, six times as fast as the values themselves.
    products = vectors @ vectors.T if len(vectors) < vectors.shape[1] else vectors.T @ vectors
    singular = torch.linalg.eigvalsh(products).clamp(min=0).sqrt()
    total = singular.sum()
    if total == 0:
        return 0.0
    shares = singular / total
    return float(torch.special.entr(shares).sum().exp())
