"""Labelled images with the paper's augmentation, random crop and flip, and the linear probe on them."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from byol.augment.apply import apply
from byol.augment.draw import draw, draw_geometric
from byol.augment.evaluation import Preprocess
from byol.augment.presets import Crop, ViewSpec
from byol.augment.transfer import sent, sent_numbers
from byol.augment.views import normalized
from byol.core.backbone import evaluating
from byol.data.crops import cut_out
from byol.data.images import Subset, resident
from byol.evaluation.batches import decoded_batches
from byol.evaluation.linear import Batches, Training, full_batches
from byol.randomness import CROPS, VIEWS, derived_generator
from byol.types import ImageSet, Picture

CROP_AND_FLIP = ViewSpec(crop=Crop(), flip=0.5)


class RandomCrops:
    """Batches of labelled images, cropped and flipped anew in every epoch.

    What an image looks like depends on the seed, the epoch and its place only, not on the number of
    workers. Images that fit in memory stay on the device as uint8.

    Args:
        image_set: labelled.
        preprocess: its size and normalisation; the crop takes the place of its resizing.
        seed: of the crops.
        device: where the batches go.
        num_workers: processes that decode and crop images which are not in memory.
    """

    def __init__(
        self,
        image_set: ImageSet,
        preprocess: Preprocess,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        num_workers: int = 0,
    ) -> None:
        assert image_set.labels is not None
        images = resident(image_set)
        self.image_set, self.preprocess, self.seed = image_set, preprocess, seed
        self.device, self.num_workers = torch.device(device), num_workers
        self.images = None if images is None else images.to(device)
        self.labels = image_set.labels.to(device)

    def __call__(self, epoch: int, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield views [B,C,S,S] and labels [B] of one epoch, whose batches of indices are `order`."""
        statistics = self.preprocess.mean, self.preprocess.std
        if self.images is None:
            for rows, crops in zip(order, self._decoded(epoch, order), strict=True):
                views = normalized(crops.to(self.device).float() / 255, statistics)
                yield views, self.labels[sent_numbers(rows, self.device)]
            return
        for step, rows in enumerate(order):
            chosen = sent_numbers(rows, self.device)
            generator = derived_generator(self.seed, VIEWS, epoch, step)
            views = normalized(_cropped(self.images[chosen], self.preprocess.size, generator), statistics)
            yield views, self.labels[chosen]

    def _decoded(self, epoch: int, order: Sequence[Tensor]) -> Iterator[Tensor]:
        per_image = partial(_single_crop, self.preprocess.size, (self.seed, epoch))
        return decoded_batches(self.image_set, per_image, order, self.num_workers)


def augmented_training(
    backbone: nn.Module,
    preprocess: Preprocess,
    image_set: ImageSet,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> Training:
    """Return batches whose vectors are computed anew each epoch from cropped and flipped images.

    The network is frozen and in eval mode.

    Args:
        backbone: from images to vectors; it is moved to `device`.
        preprocess: as `RandomCrops` takes it.
        image_set: labelled.
        seed: of order and crops.
        device: where the network runs.
        num_workers: processes that decode and crop images which are not in memory.
    """

    backbone.to(device)

    def training(indices: Tensor) -> Batches:
        chosen = Subset(image_set, indices)
        crops = RandomCrops(chosen, preprocess, seed=seed, device=device, num_workers=num_workers)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for view, labels in crops(epoch, full_batches(len(chosen), seed, epoch)):
                with evaluating(backbone), torch.no_grad():
                    vectors = backbone(view).float()
                yield vectors, labels

        return batches

    return training


def _single_crop(size: int, seeds: tuple[int, int], index: int, image: Picture) -> Tensor:
    generator = derived_generator(seeds[0], CROPS, seeds[1], index)
    drawn = draw_geometric(CROP_AND_FLIP, 1, image.height, image.width, generator)
    (crop,) = cut_out(image, [drawn], [CROP_AND_FLIP], size)
    return crop  # [C,S,S] uint8


def _cropped(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Crop and flip uint8 [B,C,H,W] to float32 [B,C,S,S] in [0,1]."""
    count, channels, height, width = images.shape
    (drawn,) = sent([draw(CROP_AND_FLIP, count, height, width, channels, generator)], images.device)
    return apply(images, drawn, size)
