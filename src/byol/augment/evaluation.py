"""The fixed preprocessing of images whose features are wanted."""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from byol.augment.presets import MeanAndStd, pixel_statistics
from byol.augment.resample import resize_bytes


@dataclass(frozen=True)
class Preprocess:
    """Resize the short side, cut the centre, normalise: what a backbone expects at test time.

    BYOL's protocol (appendix C.1) resizes the short side to 256 and cuts 224 out of it, so
    `crop_fraction` is 224/256 there; small images are used whole (1.0).
    """

    size: int
    """Side S of the result in pixels."""
    mean: tuple[float, ...]
    """Per channel, of pixels in [0,1]; `std` likewise."""
    std: tuple[float, ...]
    crop_fraction: float = 1.0
    """Side of the central crop over the resized short side."""
    interpolation: str = "bicubic"
    """bicubic or bilinear, antialiased."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild from what `dataclasses.asdict` gives, as read from JSON."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def __call__(self, images: Tensor) -> Tensor:
        """Preprocess uint8, or float in [0,1], [B,C,H,W] or [C,H,W] to float32 [..,C,S,S]."""
        batch = self._centre(self._resized(images if images.ndim == 4 else images[None]))
        floats = batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()
        mean, std = floats.new_tensor(self.mean), floats.new_tensor(self.std)
        result = (floats - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
        return result if images.ndim == 4 else result[0]

    @property
    def short_side(self) -> int:
        """Of the resized image in pixels."""
        return round(self.size / self.crop_fraction)

    def _resized(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        short = self.short_side
        if min(height, width) == short:
            return images
        scale = short / min(height, width)
        sides = (max(short, round(height * scale)), max(short, round(width * scale)))
        if images.dtype == torch.uint8:  # many times as fast as floats, of photographs
            return resize_bytes(images, sides, self.interpolation)
        floats = images.float()
        return F.interpolate(floats, sides, mode=self.interpolation, antialias=True).clamp_(0.0, 1.0)

    def _centre(self, images: Tensor) -> Tensor:
        top, left = ((side - self.size) // 2 for side in images.shape[-2:])
        return images[..., top : top + self.size, left : left + self.size]


def preprocess_for(preset: str, size: int, channels: int, normalize: MeanAndStd | None = None) -> Preprocess:
    """Return the test-time preprocessing that goes with the views of a preset.

    Args:
        preset: its name.
        size: side of the images in pixels.
        channels: of the images.
        normalize: mean and standard deviation per channel; None: ImageNet's.
    """
    mean, std = pixel_statistics(channels) if normalize is None else normalize
    fraction = 224 / 256 if preset in ("imagenet", "official", "simsiam", "pixpro") else 1.0
    return Preprocess(size, tuple(mean), tuple(std), crop_fraction=fraction)
