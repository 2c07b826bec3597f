"""Colour operations on batches of float images in [0,1], each image with its own parameters.

They equal torchvision's functional operations on floats. A parameter that stands for "leave this
image alone" gives the image back, so that a whole batch can pass through without being sorted.
"""

import torch
from torch import Tensor

from byol.augment.draw import CONTRAST, SATURATION

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
    kind, factor = _column(kind), _column(factor)
    grey = luminance(images)
    pivot = grey * (kind == SATURATION) + grey.mean(dim=(2, 3), keepdim=True) * (kind == CONTRAST)
    return (images * factor).add_(pivot.mul_(1 - factor)).clamp_(0.0, 1.0)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of RGB images by `turns` [B] of the colour wheel: `adjust_hue`.

    Hue is the only one of HSV's three numbers to change, so the largest and smallest channel stay,
    and each channel is found from the hue alone (the "alternative" HSV to RGB formula).
    """
    largest, smallest = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    chroma = largest - smallest
    red, green, blue = images.split(1, dim=1)
    # Where the chroma is 0 the numerators are 0 too, and any divisor will do.
    divisor = torch.where(chroma == 0, 1.0, chroma)
    sector = torch.where(
        largest == red,
        (green - blue) / divisor,
        torch.where(largest == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )  # [B,1,H,W] hue in sixths of a turn
    offset = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1) / 6
    turn = (sector / 6 + _column(turns)) + offset  # [B,3,H,W]
    sixth = turn.sub_(turn.floor()).mul_(6)
    share = sixth.sub_(2).abs_().neg_().add_(2).clamp_(0.0, 1.0)
    return torch.addcmul(largest, share, chroma, value=-1)


def to_grey(images: Tensor) -> Tensor:
    """Replace all three channels by the grey: `rgb_to_grayscale(num_output_channels=3)`."""
    return luminance(images).expand_as(images)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels at or above `threshold` [B]."""
    return torch.where(images >= _column(threshold), 1 - images, images)


def intensity(images: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """Multiply by `gain` [B], add `offset` [B], clamp to [0,1]."""
    return (images * _column(gain)).add_(_column(offset)).clamp_(0.0, 1.0)


def _column(parameter: Tensor) -> Tensor:
    return parameter.view(-1, 1, 1, 1)
