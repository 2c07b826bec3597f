"""Apply: turn a batch of images and drawn parameters into views. Nothing random happens here.

On a CPU a batch passes through in chunks, so that all operations happen to a chunk while it is in the
cache, and an operation sees the images it concerns. Elsewhere every operation sees all images and gives
back unchanged those that it does not concern: finding them would make the host wait for the device, and
without that the whole is one graph to compile.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from byol.augment import colour
from byol.augment.blur import gaussian_blur
from byol.augment.draw import NONE, AnyDraw, Draw, GeometricDraw, PhotometricDraw
from byol.augment.resample import affine, crop, crop_in_turn, resize

_CHUNK_BYTES = 2**20
_LARGE_SIDE = 128
"""In pixels: images with a longer side are cropped one by one on a CPU."""


class _Act(Protocol):
    """Runs an operation of images and parameters; `concerned` [B] says which images it will change."""

    def __call__(
        self, concerned: Tensor, operation: Callable[..., Tensor], images: Tensor, *parameters: Tensor
    ) -> Tensor: ...


def _unchanged(views: Tensor) -> Tensor:
    return views


def apply(
    images: Tensor,
    draw: Draw,
    size: int,
    interpolation: str = "bicubic",
    finish: Callable[[Tensor], Tensor] = _unchanged,
) -> Tensor:
    """Make one view of each image.

    Args:
        images: [B,C,H,W], uint8 or float in [0,1].
        draw: parameters of B images, on the device of `images`.
        size: side S of the views.
        interpolation: of the crop, "bicubic" or "bilinear".
        finish: what happens to the finished views [B,C,S,S] in the end, such as normalising.

    Returns:
        [B,C,S,S] float32 in [0,1], or what `finish` makes of them.
    """
    make = partial(_view, size=size, interpolation=interpolation, finish=finish)
    return _in_chunks(images, draw, size, make)


def _view(
    images: Tensor,
    draw: Draw,
    act: _Act,
    size: int,
    interpolation: str,
    finish: Callable[[Tensor], Tensor],
) -> Tensor:
    moved = geometric(images, draw.geometric, size, interpolation)
    return finish(_colours(moved, draw.photometric, act))


def geometric(images: Tensor, draw: GeometricDraw, size: int, interpolation: str) -> Tensor:
    """Crop or warp to [B,C,S,S] float32 in [0,1], and mirror."""
    floats = _of_bytes(images) if images.dtype == torch.uint8 else images.float()
    if draw.box is not None:
        cut = crop_in_turn if max(images.shape[-2:]) > _LARGE_SIDE and images.device.type == "cpu" else crop
        antialias = draw.semantics == "torchvision"
        moved = cut(floats, draw.box, draw.flip, size, interpolation, antialias)
    elif draw.affine is not None:
        moved = affine(floats, draw.affine, draw.flip, size)
    else:
        moved = resize(floats, draw.flip, size)
    return moved.clamp_(0.0, 1.0)  # bicubic overshoots, and float images may lie outside


def photometric(
    images: Tensor, draw: PhotometricDraw, finish: Callable[[Tensor], Tensor] = _unchanged
) -> Tensor:
    """Jitter, grey, blur, solarize, intensity: in that order, on crops [B,C,S,S].

    Args:
        images: uint8.
        draw: parameters of B images, on the device of `images`.
        finish: as `apply` takes it.

    Returns:
        [B,C,S,S] float32, as `apply` returns it.
    """

    def make(some: Tensor, drawn: PhotometricDraw, act: _Act) -> Tensor:
        return finish(_colours(_of_bytes(some), drawn, act))

    return _in_chunks(images, draw, images.shape[-1], make)


def _of_bytes(images: Tensor) -> Tensor:
    return images.float().mul_(1 / 255)


def _colours(images: Tensor, draw: PhotometricDraw, act: _Act) -> Tensor:
    official = draw.semantics == "official"
    blend = colour.official_blend if official else colour.blend
    blur = partial(gaussian_blur, border="constant" if official else "reflect")
    if draw.blend_kind is not None and draw.blend_factor is not None:
        for slot in range(6):
            if slot == 3 and draw.hue is not None:
                images = act(draw.hue != 0, colour.shift_hue, images, draw.hue)
            kind, factor = draw.blend_kind[:, slot], draw.blend_factor[:, slot]
            images = act(kind != NONE, blend, images, kind, factor)
    if draw.grey is not None:
        images = act(draw.grey, colour.to_grey, images, draw.grey)
    if draw.blur_sigma is not None:
        images = act(draw.blur_sigma > 0, blur, images, draw.blur_sigma)
    if draw.threshold is not None:
        images = act(draw.threshold <= 1, colour.solarize, images, draw.threshold)
    if draw.gain is not None and draw.offset is not None:
        images = colour.intensity(images, draw.gain, draw.offset)
    return images


def _to_all(
    concerned: Tensor, operation: Callable[..., Tensor], images: Tensor, *parameters: Tensor
) -> Tensor:
    return operation(images, *parameters)


def _to_concerned(
    concerned: Tensor, operation: Callable[..., Tensor], images: Tensor, *parameters: Tensor
) -> Tensor:
    numbers = np.flatnonzero(concerned.numpy())  # a few microseconds less than torch, for every operation
    if len(numbers) == 0:
        return images
    if len(numbers) == len(images):
        return operation(images, *parameters)
    first, last = int(numbers[0]), int(numbers[-1])
    # A slice where there are no gaps: it copies nothing.
    rows = slice(first, last + 1) if last - first + 1 == len(numbers) else torch.from_numpy(numbers)
    images[rows] = operation(images[rows], *(parameter[rows] for parameter in parameters))
    return images


def _in_chunks(
    images: Tensor, draw: AnyDraw, size: int, make: Callable[[Tensor, AnyDraw, _Act], Tensor]
) -> Tensor:
    """Make views [B,C,size,size] of images [B,C,H,W]: on a CPU chunk by chunk, elsewhere all at once."""
    if images.device.type != "cpu":
        return make(images, draw, _to_all)
    views = torch.empty(*images.shape[:2], size, size)
    image_bytes = 4 * images.shape[1] * max(size * size, images.shape[-2] * images.shape[-1])
    colours = draw.photometric if isinstance(draw, Draw) else draw
    for rows in _chunks(colours, len(images), image_bytes):
        views.index_copy_(0, rows, make(images.index_select(0, rows), draw[rows], _to_concerned))
    return views


def _chunks(draw: PhotometricDraw, count: int, image_bytes: int) -> tuple[Tensor, ...]:
    """Split the images' numbers [B] into cache-sized runs [b], those with jitter in one order together.

    A chunk then passes whole, or in one piece, through a step of the jitter or past it.
    """
    rows = (
        torch.arange(count) if draw.blend_kind is None else _jitter_code(draw.blend_kind).argsort(stable=True)
    )
    return rows.split(max(1, _CHUNK_BYTES // max(1, image_bytes)))


def _jitter_code(blend_kind: Tensor) -> Tensor:
    """Return a number [B] for the slots that an image's jitter fills: ascending, every slot is one run."""
    return ((blend_kind != NONE) << torch.arange(6)).sum(dim=1)
