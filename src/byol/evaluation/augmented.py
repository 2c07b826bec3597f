"""Training batches of the linear probe with the paper's augmentation: random crop and flip."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from byol.augment.apply import apply
from byol.augment.draw import draw
from byol.augment.evaluation import Preprocess
from byol.augment.presets import Crop, ViewSpec
from byol.augment.views import normalized
from byol.data.images import Subset, resident
from byol.evaluation.batches import decoded_batches
from byol.evaluation.features import evaluating
from byol.evaluation.linear import Batches, Training, batch_size_for, epoch_order
from byol.randomness import CROPS, VIEWS, derived_generator
from byol.types import ImageSet

CROP_AND_FLIP = ViewSpec(crop=Crop(), flip=0.5)


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

    The network is frozen and in eval mode. What an image looks like depends on the seed, the epoch
    and its place only, not on the number of workers.

    Args:
        backbone: from images to vectors; it is moved to `device`.
        preprocess: its size and normalisation; the crop takes the place of its resizing.
        image_set: labelled.
        seed: of order and crops.
        device: where the network runs.
        num_workers: processes that decode and crop images which are not in memory.
    """

    backbone.to(device)

    def training(indices: Tensor) -> Batches:
        chosen = Subset(image_set, indices)
        assert chosen.labels is not None
        labels, images = chosen.labels, resident(chosen)
        batch_size = batch_size_for(len(chosen))

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            order = epoch_order(len(chosen), seed, epoch)
            views = (
                _decoded_views(
                    chosen, preprocess, torch.cat(list(order)), batch_size, (seed, epoch), num_workers
                )
                if images is None
                else _resident_views(images, preprocess, order, (seed, epoch), device)
            )
            for rows, view in zip(order, views, strict=True):
                with evaluating(backbone), torch.no_grad():
                    vectors = backbone(view.to(device)).float()
                yield vectors, labels[rows].to(device)

        return batches

    return training


def _resident_views(
    images: Tensor,
    preprocess: Preprocess,
    order: Sequence[Tensor],
    seeds: tuple[int, int],
    device: torch.device | str,
) -> Iterator[Tensor]:
    for step, rows in enumerate(order):
        yield _view(images[rows].to(device), preprocess, derived_generator(seeds[0], VIEWS, seeds[1], step))


def _decoded_views(
    image_set: ImageSet,
    preprocess: Preprocess,
    order: Tensor,
    batch_size: int,
    seeds: tuple[int, int],
    num_workers: int,
) -> Iterator[Tensor]:
    per_image = partial(_single_view, preprocess, seeds)
    return decoded_batches(image_set, per_image, order, batch_size, num_workers)


def _single_view(preprocess: Preprocess, seeds: tuple[int, int], index: int, image: Tensor) -> Tensor:
    return _view(image[None], preprocess, derived_generator(seeds[0], CROPS, seeds[1], index))[0]


def _view(images: Tensor, preprocess: Preprocess, generator: torch.Generator) -> Tensor:
    """Crop, flip and normalise uint8 [B,C,H,W] to float32 [B,C,S,S]."""
    count, channels, height, width = images.shape
    drawn = draw(CROP_AND_FLIP, count, height, width, channels, generator).to(images.device)
    return normalized(apply(images, drawn, preprocess.size), (preprocess.mean, preprocess.std))
