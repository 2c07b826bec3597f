"""A fully convolutional network (Long et al. 2015, arXiv 1411.4038): a backbone and torchvision's FCN head,
trained together on masks."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from byol.core.backbone import Backbone, evaluating
from byol.errors import UserError
from byol.evaluation.dense_features import WholeImages, pixel_classes, whole_batches
from byol.evaluation.dense_task import DenseTask, masks_of
from byol.evaluation.pixel_metrics import mean_iou, pixel_confusion
from byol.evaluation.scaled_crops import CropSettings, ScaledCrops
from byol.evaluation.supervised import (
    Setting,
    batch_norm_momentum,
    descend,
    set_batch_norm_momentum,
)
from byol.randomness import NETWORK, derived_seed, epoch_order
from byol.types import ImageSet
from byol.weights import all_finite

RATES = (0.3, 1.0)
"""Base rates per 256 images. A ResNet-14 from scratch, ten epochs on a quarter of CamVid: with 0.1, 0.3, 1
and 3 its mIoU on a quarter of the validation split is 17.3, 18.5, 19.5 and 17.2 %."""
EPOCHS = (30,)
BATCH_SIZE = 16
WEIGHT_DECAY = 1e-4
"""As in torchvision's references for segmentation."""


class SegmentationNetwork(nn.Module):
    """From images [B,C,H,W] to logits [B,K,h,w] at the places of the backbone's map.

    Args:
        backbone: a part of this from now on.
        num_classes: K.
        seed: of the head's weights.
    """

    def __init__(self, backbone: Backbone, num_classes: int, seed: int) -> None:
        super().__init__()
        from torchvision.models.segmentation.fcn import FCNHead

        self.backbone = backbone
        with evaluating(backbone), torch.no_grad():
            like = next(backbone.parameters())
            shape = (1, backbone.channels, backbone.image_size, backbone.image_size)
            width = backbone.feature_map(torch.zeros(shape, device=like.device)).shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, NETWORK))
            self.head = FCNHead(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B,K,h,w]."""
        logits: Tensor = self.head(self.backbone.feature_map(images))
        return logits


@dataclass(frozen=True)
class FineTuning:
    """A network and masks, and what else is the same in every fit."""

    backbone: Backbone
    """With its `preprocess`; copied for each fit, it stays as it is."""
    task: DenseTask
    seed: int = 0
    """Of the head, order, crops and dropout."""
    device: torch.device | str = "cpu"
    num_workers: int = 0

    def fitted(self, setting: Setting) -> SegmentationNetwork:
        """Train a copy of the network and a head on `task.train`.

        Crops as `scaled_crops`, SGD with momentum 0.9 and weight decay 1e-4, cosine schedule, batches of
        16; batch norms in train mode, with `batch_norm_momentum`. A fit whose loss is no longer finite
        ends early.
        """
        classes = self.task.classes
        crops = ScaledCrops(
            self.task.train,
            self._crop_settings(),
            seed=self.seed,
            device=self.device,
            num_workers=self.num_workers,
        )
        network = SegmentationNetwork(copy.deepcopy(self.backbone), len(classes.names), self.seed)
        network.to(self.device)
        _train(network, crops, setting, classes.void, self.seed)
        return network.eval()

    def predictions(self, network: SegmentationNetwork, images: ImageSet) -> Iterator[Tensor]:
        """Yield the class of each pixel, uint8 [H,W], of whole images, in eval mode."""
        inputs, void = WholeImages(network.backbone), self.task.classes.void
        for batch in whole_batches(images, self.device, self.num_workers):
            with evaluating(network), torch.no_grad():
                logits = network(inputs(batch))
            yield from pixel_classes(logits, (batch.shape[2], batch.shape[3]), void).cpu()

    def _crop_settings(self) -> CropSettings:
        """Return crops as large as the median image, or of the one size that the network takes."""
        train, classes = self.task.train, self.task.classes
        sides = torch.tensor([masks_of(train)[index].shape for index in range(len(train))])  # [N,2]
        height, width = map(int, sides.median(dim=0).values)
        inputs = WholeImages(self.backbone)
        if inputs.takes(torch.Size((self.backbone.channels, height, width))):
            return CropSettings((height, width), inputs.normalization, classes.void)
        side = self.backbone.image_size
        return CropSettings((side, side), inputs.normalization, classes.void, squeezed=True)


def finetune_fcn(
    tuning: FineTuning, grid: Sequence[Setting], report: Callable[[str], None]
) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """Fit every setting of a grid; keep the network with the best mean IoU on `task.choice`.

    It is not fitted again with those images: CamVid's results are of networks that saw train alone.

    Args:
        tuning: network and masks.
        grid: the settings; a single one is not compared.
        report: gets a line after each fit.

    Returns:
        The network chosen, after its last epoch, and what it was fitted with, for results.json.

    Raises:
        UserError: the backbone's weights are not finite; all fits diverged.
    """
    if not all_finite(tuning.backbone):
        raise UserError("the weights of the backbone are not finite: nothing can be made of them")
    reached: dict[Setting, float | None] = {}
    best: SegmentationNetwork | None = None
    chosen, highest = grid[0], -1.0
    for setting in grid:
        start = time.perf_counter()
        network = tuning.fitted(setting)
        reached[setting] = score = _choice_iou(tuning, network)
        ended = "diverged" if score is None else f"mIoU {score:.1%} on {tuning.task.chosen_on}"
        report(
            f"{len(tuning.task.train)} masks, lr {setting.lr:g}, {setting.epochs} epochs, "
            f"{ended} ({time.perf_counter() - start:.0f} s)"
        )
        if score is not None and score > highest:
            best, chosen, highest = network, setting, score
    if best is None:
        raise UserError("fine-tuning diverged: give lower --finetune-rates")
    return best, _settings(tuning.task, chosen, reached)


def _choice_iou(tuning: FineTuning, network: SegmentationNetwork) -> float | None:
    """Return the mean IoU on the images that settings are chosen on; None of a network that diverged."""
    if not all_finite(network):
        return None
    choice, classes = tuning.task.choice, tuning.task.classes
    return mean_iou(pixel_confusion(tuning.predictions(network, choice), masks_of(choice), classes))


def _settings(task: DenseTask, chosen: Setting, reached: dict[Setting, float | None]) -> dict[str, Any]:
    return {
        "lr": chosen.lr,
        "epochs": chosen.epochs,
        "batch_size": BATCH_SIZE,
        "bn_momentum": batch_norm_momentum(_steps(len(task.train))),
        "grid": [{"lr": s.lr, "epochs": s.epochs, task.chosen_on: iou} for s, iou in reached.items()],
    }


def _steps(count: int) -> int:
    return math.ceil(count / BATCH_SIZE)


def _train(network: SegmentationNetwork, crops: ScaledCrops, setting: Setting, void: int, seed: int) -> None:
    count = len(crops.image_set)
    steps = _steps(count)
    set_batch_norm_momentum(network.backbone, batch_norm_momentum(steps))
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, weight_decay=WEIGHT_DECAY)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return crops(epoch, epoch_order(count, seed, epoch).tensor_split(steps))

    peak = setting.lr * BATCH_SIZE / 256
    descend(network, optimizer, batches, partial(_loss, void=void), peak, setting.epochs, steps, seed)


def _loss(logits: Tensor, classes: Tensor, void: int) -> Tensor:
    """Return the mean cross-entropy over pixels that are not void; 0 where all are."""
    upsampled = F.interpolate(logits, classes.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(upsampled, classes, ignore_index=void, reduction="sum")
    return total / (classes != void).sum().clamp(min=1)
