"""Crops of one image as bytes: what loaders' workers make of files."""

from collections.abc import Sequence

import torch
from torch import Tensor

from byol.augment.draw import GeometricDraw
from byol.augment.presets import ViewSpec
from byol.augment.resample import resize_by_taps, resize_bytes
from byol.errors import UserError
from byol.types import Picture


def cut_out(
    image: Picture, draws: Sequence[GeometricDraw], specs: Sequence[ViewSpec], size: int
) -> list[Tensor]:
    """Return a view [C,S,S] of an image for each draw, without colours; it is decoded once, no larger than
    the smallest of the crops needs."""
    reduction = image.reduction(_shortest(draws), size)
    pixels = image.pixels(reduction)  # [C,H/r,W/r]
    return [cut(pixels, draw, spec, size, reduction) for draw, spec in zip(draws, specs, strict=True)]


def _shortest(draws: Sequence[GeometricDraw]) -> int:
    """Return the shortest side of these crops, 0 where they want whole images: those of the official code do,
    which does not antialias."""
    sides = [0 if d.box is None or d.semantics == "official" else int(d.box[:, 2:].min()) for d in draws]
    return min(sides)


def cut(image: Tensor, draw: GeometricDraw, spec: ViewSpec, size: int, reduction: int = 1) -> Tensor:
    """Crop, resize and mirror one uint8 image to [C,S,S] bytes.

    Args:
        image: [C,H/r,W/r].
        draw: a crop of the image of H x W pixels.
        spec: the view's interpolation.
        size: S.
        reduction: r.
    """
    if draw.box is None:
        raise UserError("this preset has no crop and works only on images of one small size (glyphs)")
    assert spec.crop is not None
    top, left, height, width = draw.box[0].tolist()
    rows, columns = (
        slice(round(first / reduction), round((first + side) / reduction))
        for first, side in ((top, height), (left, width))
    )
    resize = _resized_official if draw.semantics == "official" else resize_bytes
    view = resize(image[:, rows, columns], (size, size), spec.crop.interpolation)
    return view.flip(2) if bool(draw.flip[0]) else view


def _resized_official(image: Tensor, sides: tuple[int, int], interpolation: str) -> Tensor:
    return resize_by_taps(image, sides[0], interpolation).round_().clamp_(0, 255).to(torch.uint8)
