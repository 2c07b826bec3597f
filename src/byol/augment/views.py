"""Two augmented views of each image of a batch."""

import warnings
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Literal, overload

import torch
from torch import Generator, Tensor

from byol.augment.apply import apply
from byol.augment.draw import Draw, draw
from byol.augment.presets import ViewSpec, normalization, preset_named
from byol.geometry import normalized_boxes
from byol.types import View

Normalization = Literal["imagenet"] | tuple[Sequence[float], Sequence[float]] | None
Preset = str | tuple[ViewSpec, ViewSpec]


@overload
def views(
    images: Tensor,
    size: int = ...,
    preset: Preset = ...,
    generator: Generator | None = ...,
    *,
    normalize: Normalization = ...,
    return_geometry: Literal[False] = ...,
) -> tuple[Tensor, Tensor]: ...
@overload
def views(
    images: Tensor,
    size: int = ...,
    preset: Preset = ...,
    generator: Generator | None = ...,
    *,
    normalize: Normalization = ...,
    return_geometry: Literal[True],
) -> tuple[View, View]: ...
def views(
    images: Tensor,
    size: int = 224,
    preset: Preset = "imagenet",
    generator: Generator | None = None,
    *,
    normalize: Normalization = "imagenet",
    return_geometry: bool = False,
) -> tuple[Tensor, Tensor] | tuple[View, View]:
    """Draw two views of each image (BYOL, appendix B; Table 6 for the default preset).

    Every image has its own random parameters. The same generator state gives the same views.

    Args:
        images: [B,C,H,W], uint8 or float in [0,1]; any number of channels C. Operations that need
            RGB are left out where C is not 3.
        size: side S of the views in pixels.
        preset: "imagenet", "official" (the same table with the operations of the official code), "small"
            (32-96 pixels), "glyph" (digits and letters), or two `ViewSpec`s.
        generator: source of randomness; torch's CPU generator by default.
        normalize: "imagenet" (its grey for C other than 3), a pair of mean and standard deviation
            per channel, or None for views in [0,1].
        return_geometry: return `View` objects, with the crop's box and the mirroring.

    Returns:
        Two float32 tensors [B,C,S,S], or two `View`s holding them.

    Raises:
        ValueError: `images` is no batch of images, or the preset does not exist.
    """
    _check(images)
    specs = preset_named(preset) if isinstance(preset, str) else preset
    count, channels, height, width = images.shape
    draws = [draw(spec, count, height, width, channels, generator) for spec in specs]
    # Pixels keep their precision also where the network around them runs in bf16.
    with torch.autocast(images.device.type, enabled=False):
        first, second = (
            _view(images, spec, drawn.to(images.device), size, normalize)
            for spec, drawn in zip(specs, draws, strict=True)
        )
    return (first, second) if return_geometry else (first.image, second.image)


def _view(images: Tensor, spec: ViewSpec, drawn: Draw, size: int, normalize: Normalization) -> View:
    interpolation = spec.crop.interpolation if spec.crop else "bilinear"
    image = apply(images, drawn, size, interpolation, partial(normalized, normalize=normalize))
    return View(image, _source_box(drawn, images), drawn.geometric.flip)


def normalized(images: Tensor, normalize: Normalization) -> Tensor:
    """Subtract the mean and divide by the standard deviation per channel, in place."""
    if normalize is None:
        return images
    mean, std = normalization(images.shape[1]) if normalize == "imagenet" else normalize
    return images.sub_(_column(tuple(mean), images.device)).div_(_column(tuple(std), images.device))


@lru_cache(maxsize=16)
def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return [1,C,1,1]; kept, because sending it to a GPU makes the host wait."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


def _source_box(drawn: Draw, images: Tensor) -> Tensor | None:
    """Return the part of the source that a view shows [B,4]; None after an affine."""
    height, width = images.shape[-2:]
    if drawn.geometric.affine is not None:
        return None
    if drawn.geometric.box is None:
        return torch.tensor([0.0, 0.0, 1.0, 1.0], device=images.device).expand(len(images), 4)
    return normalized_boxes(drawn.geometric.box, height, width)


def _check(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must be [B,C,H,W], got a tensor of shape {tuple(images.shape)}")
    if images.dtype != torch.uint8 and not images.dtype.is_floating_point:
        raise ValueError(f"images must be uint8 or float in [0,1], got {images.dtype}")
    _warn_once_if_out_of_range(images)


_range_checked = False


def _warn_once_if_out_of_range(images: Tensor) -> None:
    """Look at the first float batch only: reading a GPU tensor's range makes the host wait."""
    global _range_checked
    if _range_checked or images.dtype == torch.uint8 or images.numel() == 0:
        return
    _range_checked = True
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        warnings.warn(
            f"float images should lie in [0,1], these reach from {low:.3g} to {high:.3g}: "
            "divide by 255, or pass uint8; views clamp what lies outside",
            stacklevel=4,
        )
