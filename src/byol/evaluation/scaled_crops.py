"""Random scaled crops and flips of images together with their masks, as FCNs are trained on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from byol.augment.views import normalized
from byol.data.images import resident
from byol.evaluation.batches import decoded_batches
from byol.evaluation.dense_features import LARGEST_SIDE
from byol.evaluation.dense_task import masks_of
from byol.randomness import CROPS, VIEWS, derived_generator
from byol.types import ImageSet, Masks, Picture

SCALES = (0.5, 2.0)
"""As in torchvision's references for segmentation (presets.py)."""


@dataclass(frozen=True)
class CropSettings:
    """What the crops of one set have in common."""

    size: tuple[int, int]
    """Height and width of a crop in pixels."""
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    """Mean and standard deviation per channel, of pixels in [0,1]."""
    void: int
    """What pixels of the mask become that lie outside the image; the image has its mean colour there."""
    squeezed: bool = False
    """A crop of scale 1 is the whole image brought to `size`, rather than so many pixels of it."""


def scaled_crops(
    images: Tensor, masks: Tensor, settings: CropSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Scale each image, cut a window out of it, mirror every other one.

    Scales are drawn log-uniformly from `SCALES`. Where the scaled image is smaller than the window it
    lies anywhere in it. Colours are interpolated bilinearly, classes taken from the nearest pixel.

    Args:
        images: uint8 [B,C,H,W].
        masks: uint8 [B,H,W].
        settings: of the result.
        generator: on the CPU.

    Returns:
        float32 [B,C,h,w] and int64 [B,h,w].
    """
    maps = _affine_maps(len(images), (images.shape[2], images.shape[3]), settings, generator)
    grid = F.affine_grid(maps.to(images.device), [len(images), 1, *settings.size], align_corners=False)
    floats = normalized(images.float() / 255, settings.normalization)
    views = F.grid_sample(floats, grid, padding_mode="zeros", align_corners=False)
    # Zeros outside: classes are counted from 1 meanwhile.
    counted = masks[:, None].float() + 1
    nearest = F.grid_sample(counted, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    classes = nearest[:, 0].long() - 1
    return views, torch.where(classes < 0, settings.void, classes)


def _affine_maps(
    count: int, source: tuple[int, int], settings: CropSettings, generator: torch.Generator
) -> Tensor:
    """Return [B,2,3] from places in the crop to places in the image, both from -1 to 1."""
    low, high = map(math.log, SCALES)
    scale = (low + (high - low) * torch.rand(count, generator=generator)).exp()
    flip = torch.rand(count, generator=generator) < 0.5
    window = source if settings.squeezed else settings.size
    ratio = torch.tensor([window[1] / source[1], window[0] / source[0]])  # of x and y
    extent = ratio / scale[:, None]  # [B,2] of the window over the image
    centre = (1 - extent).abs() * (2 * torch.rand(count, 2, generator=generator) - 1)
    signs = torch.stack([torch.where(flip, -1.0, 1.0), torch.ones(count)], dim=1)
    return torch.cat([torch.diag_embed(extent * signs), centre[:, :, None]], dim=2)


class ScaledCrops:
    """Batches of images and masks, scaled, cut and mirrored anew in every epoch.

    What an image looks like depends on the seed, the epoch and its place only, not on the number of
    workers. Images that fit in memory stay on the device as uint8.

    Args:
        image_set: with masks.
        settings: of the crops.
        seed: of the draws.
        device: where the batches go.
        num_workers: processes that decode and cut images which are not in memory.
    """

    def __init__(
        self,
        image_set: ImageSet,
        settings: CropSettings,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        num_workers: int = 0,
    ) -> None:
        self.image_set, self.settings, self.seed = image_set, settings, seed
        self.device, self.num_workers = device, num_workers
        images, masks = resident(image_set, largest_side=LARGEST_SIDE), masks_of(image_set)
        self.images = None if images is None else images.to(device)
        if images is not None:
            self.masks = torch.stack([masks[index] for index in range(len(masks))]).to(device)

    def __call__(self, epoch: int, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield crops [B,C,h,w] and classes [B,h,w] of one epoch, whose batches of indices are `order`."""
        return self._decoded(epoch, order) if self.images is None else self._resident(epoch, order)

    def _resident(self, epoch: int, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        assert self.images is not None
        for step, rows in enumerate(order):
            chosen = rows.to(self.device)
            generator = derived_generator(self.seed, VIEWS, epoch, step)
            yield scaled_crops(self.images[chosen], self.masks[chosen], self.settings, generator)

    def _decoded(self, epoch: int, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        per_image = partial(_single_crop, masks_of(self.image_set), self.settings, (self.seed, epoch))
        for batch in decoded_batches(self.image_set, per_image, order, self.num_workers):
            moved = batch.to(self.device)  # [B,C+1,h,w]
            yield moved[:, :-1], moved[:, -1].long()


def _single_crop(
    masks: Masks, settings: CropSettings, seeds: tuple[int, int], index: int, image: Picture
) -> Tensor:
    """Cut one image and its mask, in a loader's worker."""
    generator = derived_generator(seeds[0], CROPS, seeds[1], index)
    mask = masks[index]
    view, classes = scaled_crops(image.pixels()[None], mask[None], settings, generator)
    return torch.cat([view[0], classes.to(view)])  # [C+1,h,w], the classes last
