"""Colour operations on batches of float images in [0,1], each image with its own parameters.

They equal torchvision's functional operations on floats; `official_blend` equals those of the official
code of BYOL (`utils/augmentations.py`), whose hue and grey are torchvision's, too. A parameter that
stands for "leave this image alone" gives the image back, so that a whole batch can pass through
without being sorted.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from byol.augment.draw import BRIGHTNESS, CONTRAST, SATURATION

# ITU-R 601-2, with the digits that torchvision uses.
_GREY_WEIGHTS = (0.2989, 0.587, 0.114)


def luminance(images: Tensor) -> Tensor:
    """Return the grey version [B,1,H,W]; the mean of the channels where there are not three."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    red_weight, green_weight, blue_weight = _GREY_WEIGHTS
    return torch.add(red * red_weight, green, alpha=green_weight).add_(blue, alpha=blue_weight)


def blend(images: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance of every pixel to a pivot by `factor` and clamp to [0,1].

    The pivot is black for brightness (kind 1), the image's mean grey for contrast (2) and the
    pixel's own grey for saturation (3): `adjust_brightness`, `adjust_contrast`, `adjust_saturation`.

    Args:
        images: [B,C,H,W] in [0,1].
        kind: [B] int64.
        factor: [B], at least 0.
    """
    grey, remainder = luminance(images), 1 - factor
    of_pixel = _column(remainder * (kind == SATURATION))
    of_image = _column(remainder * (kind == CONTRAST))
    pivot = (grey * of_pixel).add_(grey.mean(dim=(2, 3), keepdim=True) * of_image)
    return torch.addcmul(pivot, images, _column(factor)).clamp_(0.0, 1.0)


def official_blend(images: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Add to every pixel, scale about each channel's mean, or scale HSV's saturation; clamp to [0,1].

    These are brightness (kind 1), contrast (2) and saturation (3) of the official code. Scaling the
    saturation S = (V - smallest) / V, at most to 1, scales every channel's distance to V, the
    largest channel, by as much: no conversion is needed.

    Args:
        images: [B,C,H,W] in [0,1].
        kind: [B] int64.
        factor: [B]: what is added for brightness, else the scale, at least 0.
    """
    added = torch.where(kind == BRIGHTNESS, factor, 0.0)
    scale = _column(torch.where(kind == BRIGHTNESS, 1.0, factor))
    largest = images.amax(dim=1, keepdim=True)
    chroma = largest - images.amin(dim=1, keepdim=True)
    is_saturation = _column((kind == SATURATION).to(images))
    # Where the chroma is 0, every channel is the largest one, and any scale will do.
    most = largest.div(chroma.clamp_(min=1e-9))  # [B,1,H,W] what takes S to 1
    scale = torch.lerp(scale, torch.minimum(scale, most), is_saturation)
    means = images.mean(dim=(2, 3), keepdim=True) * _column((kind == CONTRAST).to(images))  # [B,C,1,1]
    pivot = torch.addcmul(means, largest, is_saturation)  # [B,C,H,W]
    return torch.lerp(pivot, images, scale).add_(_column(added)).clamp_(0.0, 1.0)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of RGB images by `turns` [B] of the colour wheel: `adjust_hue`.

    Hue is the only one of HSV's three numbers to change, so the largest and smallest channel stay,
    and each channel is found from the hue alone (the "alternative" HSV to RGB formula).
    """
    largest, smallest = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    chroma = largest - smallest
    red, green, blue = images.split(1, dim=1)
    is_red, is_green = _mask(torch.eq, red, largest), _mask(torch.eq, green, largest)
    difference = torch.lerp(torch.lerp(red - green, blue - red, is_green), green - blue, is_red)
    first = is_green.mul_(-2).add_(4).mul_(is_red.neg_().add_(1))  # 0 where red is largest, green 2, blue 4
    # Where the chroma is 0 the differences are 0 too, and any divisor will do.
    sector = difference.div_(chroma.clamp(min=1e-9)).add_(first)  # [B,1,H,W] hue in sixths of a turn
    # 5, 3 and 1 sixths for the channels, and a whole turn to keep the sum positive.
    offset = torch.arange(11, 6, -2, device=images.device).view(1, 3, 1, 1) / 6
    turn = sector.div_(6) + (_column(turns) + offset)  # [B,3,H,W]
    share = turn.frac_().sub_(1 / 3).abs_().clamp_(1 / 6, 1 / 3)  # of the chroma: 1/6 all, 1/3 nothing
    # Rounding may leave the range by a bit.
    return torch.addcmul(largest - 2 * chroma, share, chroma.mul_(6)).clamp_(0.0, 1.0)


def to_grey(images: Tensor, chosen: Tensor) -> Tensor:
    """Replace all channels by the grey where `chosen` [B] is true: `rgb_to_grayscale`."""
    return torch.lerp(images, luminance(images), _column(chosen.to(images)))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels at or above `threshold` [B]."""
    return torch.lerp(images, 1 - images, _mask(torch.ge, images, _column(threshold)))


def intensity(images: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """Multiply by `gain` [B], add `offset` [B], clamp to [0,1]."""
    return (images * _column(gain)).add_(_column(offset)).clamp_(0.0, 1.0)


def _mask(compare: Callable[..., Tensor], left: Tensor, right: Tensor) -> Tensor:
    """Return 1.0 where the comparison holds and 0.0 elsewhere, in the shape of `left`.

    As weights of `torch.lerp`, which is exact at 0 and 1, such masks choose between two tensors 30 times
    as fast on a CPU as booleans and `torch.where`, which are not vectorised there.
    """
    return compare(left, right, out=torch.empty_like(left))


def _column(parameter: Tensor) -> Tensor:
    return parameter.view(-1, 1, 1, 1)
