"""Two augmented views of each image of a batch."""

import warnings
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Literal, overload

import torch
from torch import Generator, Tensor

from byol.augment.apply import apply
from byol.augment.draw import Draw, draw
from byol.augment.presets import MeanAndStd, ViewSpec, pixel_statistics
from byol.augment.transfer import sent
from byol.augment.view_settings import view_specs_of
from byol.types import View

Normalization = Literal["imagenet"] | MeanAndStd | None
Preset = str | Mapping[str, Any] | tuple[ViewSpec, ViewSpec]
Columns = tuple[Tensor, Tensor]


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
        preset: "imagenet", "official" (the same table with the operations of the official code), "pixpro"
            (with bilinear crops), "small" (32-96 pixels), "simsiam" and "simsiam-small" (its paper's),
            "glyph" (digits and letters), two `ViewSpec`s, or names and values as under `preset:` in YAML.
        generator: source of randomness; torch's CPU generator by default.
        normalize: "imagenet" (its grey for C other than 3), a pair of mean and standard deviation
            per channel, or None for views in [0,1].
        return_geometry: return `View` objects, with the crop's box and the mirroring.

    Returns:
        Two float32 tensors [B,C,S,S], or two `View`s holding them.

    Raises:
        ValueError: `images` is no batch of images.
        UserError: the preset does not exist, or a value in it is not what it should be.
    """
    _check(images)
    specs = view_specs_of(preset)
    draws = draw_pair(specs, images, generator)
    made = made_views(images, draws, specs, size, columns(normalize, images))
    return with_geometry(made, draws, images) if return_geometry else made


def draw_pair(
    specs: tuple[ViewSpec, ViewSpec], images: Tensor, generator: Generator | None = None
) -> tuple[Draw, Draw]:
    """Draw both views' parameters for images [B,C,H,W], and send them where the images are."""
    count, channels, height, width = images.shape
    drawn = [draw(spec, count, height, width, channels, generator) for spec in specs]
    first, second = sent(drawn, images.device)
    return first, second


def made_views(
    images: Tensor,
    draws: tuple[Draw, Draw],
    specs: tuple[ViewSpec, ViewSpec],
    size: int,
    columns: Columns | None,
) -> tuple[Tensor, Tensor]:
    """Return two views [B,C,S,S] of images [B,C,H,W] by drawn parameters; nothing random happens here.

    On an accelerator this is one graph to compile.
    """
    # Pixels keep their precision also where the network around them runs in bf16.
    with torch.autocast(images.device.type, enabled=False):
        first, second = (
            apply(images, drawn, size, _interpolation(spec), partial(standardized, columns=columns))
            for spec, drawn in zip(specs, draws, strict=True)
        )
    return first, second


def with_geometry(
    made: tuple[Tensor, Tensor], draws: tuple[Draw, Draw], images: Tensor, boxes: bool = True
) -> tuple[View, View]:
    """Return what `made_views` made together with where it comes from; the boxes only where asked for."""
    height, width = images.shape[-2:]
    first, second = (
        View(view, drawn.geometric.source_box(height, width) if boxes else None, drawn.geometric.flip)
        for view, drawn in zip(made, draws, strict=True)
    )
    return first, second


def _interpolation(spec: ViewSpec) -> str:
    return spec.crop.interpolation if spec.crop else "bilinear"


def columns(normalize: Normalization, images: Tensor) -> Columns | None:
    """Return mean and standard deviation as [1,C,1,1] beside images [B,C,H,W], or None."""
    if normalize is None:
        return None
    mean, std = pixel_statistics(images.shape[1]) if normalize == "imagenet" else normalize
    return _column(tuple(mean), images.device), _column(tuple(std), images.device)


def normalized(images: Tensor, normalize: Normalization) -> Tensor:
    """Subtract the mean and divide by the standard deviation per channel, in place."""
    return standardized(images, columns(normalize, images))


def standardized(images: Tensor, columns: Columns | None) -> Tensor:
    """As `normalized`, by what `columns` returned."""
    return images if columns is None else images.sub_(columns[0]).div_(columns[1])


@lru_cache(maxsize=16)
def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return [1,C,1,1]; kept, because sending it to a GPU makes the host wait."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


def _check(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must be [B,C,H,W], got a tensor of shape {tuple(images.shape)}")
    if images.dtype != torch.uint8 and not images.dtype.is_floating_point:
        raise ValueError(f"images must be uint8 or float in [0,1], got {images.dtype}")
    warn_once_if_out_of_range(images)


_range_checked = False


def warn_once_if_out_of_range(images: Tensor) -> None:
    """Warn of the first floats outside [0,1] that are seen.

    Only the first batch on a GPU is looked at: reading its range makes the host wait.
    """
    global _range_checked
    unknown = images.dtype == torch.uint8 or images.numel() == 0 or images.is_meta
    if _range_checked or unknown or torch.compiler.is_compiling():
        return
    low, high = map(float, images.detach().aminmax())
    _range_checked = low < 0 or high > 1 or images.device.type != "cpu"
    if low < 0 or high > 1:
        warnings.warn(
            f"float images should lie in [0,1], these reach from {low:.3g} to {high:.3g}: "
            "divide by 255, or pass uint8; views clamp what lies outside",
            stacklevel=4,
        )
