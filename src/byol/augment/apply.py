"""Apply: turn a batch of images and drawn parameters into views. Nothing random happens here."""

from collections.abc import Callable

import torch
from torch import Tensor

from byol.augment import colour
from byol.augment.blur import gaussian_blur
from byol.augment.draw import NONE, Draw, GeometricDraw, PhotometricDraw
from byol.augment.resample import affine, crop, resize

# On a CPU a chunk passes through all operations while it is in the second-level cache.
_CHUNK_BYTES = 2**20


def apply(images: Tensor, draw: Draw, size: int, interpolation: str = "bicubic") -> Tensor:
    """Make one view of each image.

    Args:
        images: [B,C,H,W], uint8 or float in [0,1].
        draw: parameters of B images, on the device of `images`.
        size: side S of the views.
        interpolation: of the crop, "bicubic" or "bilinear".

    Returns:
        [B,C,S,S] float32 in [0,1].
    """
    chunks = [
        photometric(
            geometric(images[rows], draw.geometric[rows], size, interpolation), draw.photometric[rows]
        )
        for rows in _chunks(images, size)
    ]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def geometric(images: Tensor, draw: GeometricDraw, size: int, interpolation: str) -> Tensor:
    """Crop or warp to [B,C,S,S] float32 in [0,1], and mirror."""
    floats = images.float().mul_(1 / 255) if images.dtype == torch.uint8 else images.float()
    if draw.box is not None:
        cropped = crop(floats, draw.box, draw.flip, size, interpolation)
        return cropped.clamp_(0.0, 1.0) if interpolation == "bicubic" else cropped
    if draw.affine is not None:
        return affine(floats, draw.affine, draw.flip, size)
    return resize(floats, draw.flip, size)


def photometric(images: Tensor, draw: PhotometricDraw) -> Tensor:
    """Jitter, grey, blur, solarize, intensity: in that order, on [B,C,S,S] floats in [0,1]."""
    if draw.blend_kind is not None and draw.blend_factor is not None:
        for slot in range(6):
            if slot == 3 and draw.hue is not None:
                images = _where(draw.hue != 0, colour.shift_hue, images, draw.hue)
            kind, factor = draw.blend_kind[:, slot], draw.blend_factor[:, slot]
            images = _where(kind != NONE, colour.blend, images, kind, factor)
    if draw.grey is not None:
        images = _where(draw.grey, _to_grey, images, draw.grey)
    if draw.blur_sigma is not None:
        images = _where(draw.blur_sigma > 0, gaussian_blur, images, draw.blur_sigma)
    if draw.threshold is not None:
        images = _where(draw.threshold <= 1, colour.solarize, images, draw.threshold)
    if draw.gain is not None and draw.offset is not None:
        images = colour.intensity(images, draw.gain, draw.offset)
    return images


def _to_grey(images: Tensor, grey: Tensor) -> Tensor:
    return torch.where(grey.view(-1, 1, 1, 1), colour.to_grey(images), images)


def _where(
    concerned: Tensor, operation: Callable[..., Tensor], images: Tensor, *parameters: Tensor
) -> Tensor:
    """Run `operation` on the images it concerns.

    On a CPU the others are left out; elsewhere finding them would make the host wait for the device,
    and the operation gives them back unchanged.
    """
    if images.device.type != "cpu":
        return operation(images, *parameters)
    rows = concerned.nonzero().squeeze(1)
    if len(rows) == len(images):
        return operation(images, *parameters)
    if len(rows) > 0:
        changed = operation(images[rows], *(parameter[rows] for parameter in parameters))
        images.index_copy_(0, rows, changed)
    return images


def _chunks(images: Tensor, size: int) -> list[slice]:
    """Split a batch on the CPU into cache-sized runs; on another device it stays whole."""
    count = len(images)
    if images.device.type != "cpu":
        return [slice(0, count)]
    largest_side = max(size * size, images.shape[-2] * images.shape[-1])
    step = max(1, _CHUNK_BYTES // (4 * images.shape[1] * largest_side))
    return [slice(start, min(start + step, count)) for start in range(0, max(count, 1), step)]
