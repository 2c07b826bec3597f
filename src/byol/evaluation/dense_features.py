"""Whole images for networks that give maps, and the feature maps that a frozen one makes of them."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from byol.augment.views import normalized
from byol.core.backbone import Backbone, evaluating
from byol.data.images import resident
from byol.evaluation.batches import decoded_batches
from byol.types import ImageSet, Picture

LARGEST_SIDE = 1024
"""In pixels, of images that are kept in memory (2 GiB at most)."""
_BATCH = 16


class WholeImages:
    """Turns uint8 images into a network's input: normalised, uncut, of their own size.

    A network that does not take that size (a ViT or Swin, made for one grid of patches) gets them resized
    to squares of `backbone.image_size`; one forward pass of zeros tells, once a size.
    """

    def __init__(self, backbone: Backbone) -> None:
        assert backbone.preprocess is not None
        self.backbone = backbone
        self.normalization = (backbone.preprocess.mean, backbone.preprocess.std)
        self.taken: dict[torch.Size, bool] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return uint8 [B,C,H,W] as float32, of [B,C,S,S] where the network does not take their size."""
        floats = images.float() / 255
        if not self.takes(images.shape[1:]):
            sides = (self.backbone.image_size, self.backbone.image_size)
            floats = F.interpolate(floats, sides, mode="bicubic", antialias=True).clamp_(0.0, 1.0)
        return normalized(floats, self.normalization)

    def takes(self, shape: torch.Size) -> bool:
        """Say whether the network makes a map of images [C,H,W] of this shape."""
        if shape not in self.taken:
            like = next(self.backbone.parameters(), torch.zeros(()))
            try:
                with evaluating(self.backbone), torch.no_grad():
                    self.backbone.feature_map(torch.zeros((1, *shape), device=like.device))
                self.taken[shape] = True
            except torch.OutOfMemoryError:
                raise
            # Each network refuses in a way of its own: AssertionError, RuntimeError, UserError of no map, ...
            except Exception:
                self.taken[shape] = False
        return self.taken[shape]


def whole_batches(
    images: ImageSet, device: torch.device | str = "cpu", num_workers: int = 0
) -> Iterator[Tensor]:
    """Yield all images in their order as uint8 [B,C,H,W] on `device`, singly unless `resident` takes them.

    Raises:
        UserError: an image cannot be read.
    """
    together = resident(images, largest_side=LARGEST_SIDE)
    if together is not None:
        for batch in together.split(_BATCH):
            yield batch.to(device)
        return
    singly = torch.arange(len(images)).split(1)
    for batch in decoded_batches(images, _unchanged, singly, num_workers):
        yield batch.to(device)


def map_batches(
    backbone: Backbone, images: ImageSet, device: torch.device | str = "cpu", num_workers: int = 0
) -> Iterator[Tensor]:
    """Yield the feature maps [B,D,h,w] of all images, in their order, as float32 on `device`.

    The network runs in eval mode without gradients; its state stays bit-identical. It is moved to `device`.
    """
    backbone.to(device)
    inputs = WholeImages(backbone)
    for batch in whole_batches(images, device, num_workers):
        with evaluating(backbone), torch.no_grad():
            maps = backbone.feature_map(inputs(batch)).float()
        yield maps


def pixel_classes(logits: Tensor, size: tuple[int, int], void: int) -> Tensor:
    """Return the likeliest class of each pixel, uint8 [B,H,W], of logits [B,K,h,w] upsampled bilinearly.

    `void` is never one: where it is below K, no pixel has taught what to make of its logit.
    """
    upsampled = F.interpolate(logits, size, mode="bilinear", align_corners=False)  # [B,K,H,W]
    upsampled[:, void : void + 1] = -math.inf  # nothing from K on
    return upsampled.argmax(dim=1).to(torch.uint8)


def _unchanged(index: int, image: Picture) -> Tensor:
    return image.pixels()
