"""Geometry of a view: antialiased crops as matrix products, affine maps, mirrors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def crop(images: Tensor, box: Tensor, flip: Tensor, size: int, interpolation: str) -> Tensor:
    """Cut a box out of each image and resize it to `size` x `size`, antialiased, mirrored where asked.

    Equals torchvision's `resized_crop(antialias=True)` followed by `horizontal_flip`, for a whole
    batch with a box each: resizing is linear and separable, so each image is multiplied by one
    matrix of filter weights a side, and mirroring reverses the rows of one of them.

    Args:
        images: [B,C,H,W], float32.
        box: [B,4] integer top, left, height, width.
        flip: [B] bool.
        size: output side S.
        interpolation: "bilinear" or "bicubic".

    Returns:
        [B,C,S,S] float32; bicubic may overshoot the range of the input.
    """
    height, width = images.shape[-2:]
    top, left, box_height, box_width = box.unbind(1)
    rows = _filter_weights(top, box_height, height, size, interpolation)  # [B,S,H]
    columns = _filter_weights(left, box_width, width, size, interpolation)  # [B,S,W]
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    batch, channels = images.shape[:2]
    wide = images.reshape(batch, channels * height, width) @ columns.transpose(1, 2)  # [B,C*H,S]
    return rows[:, None] @ wide.view(batch, channels, height, size)  # [B,C,S,S]


def affine(images: Tensor, maps: Tensor, flip: Tensor, size: int) -> Tensor:
    """Resample each image through its own affine map, bilinear, zeros outside.

    Args:
        images: [B,C,H,W], float32.
        maps: [B,2,3] from output to input coordinates, as `torch.nn.functional.affine_grid` takes them.
        flip: [B] bool: mirror the result.
        size: output side S.
    """
    mirror = torch.where(flip, -1.0, 1.0).to(maps)
    first_column = maps[:, :, :1] * mirror[:, None, None]
    maps = torch.cat([first_column, maps[:, :, 1:]], dim=2)
    grid = F.affine_grid(maps, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)  # [B,C,S,S]


def resize(images: Tensor, flip: Tensor, size: int) -> Tensor:
    """Bring whole images to `size` x `size` (bilinear, antialiased) and mirror where asked."""
    if images.shape[-2:] != (size, size):
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return torch.where(flip[:, None, None, None], images.flip(3), images)


def _filter_weights(start: Tensor, length: Tensor, source: int, size: int, interpolation: str) -> Tensor:
    """Return the weights [B,S,source] that resize pixels start..start+length-1 to `size` pixels.

    The filter is stretched by the scale when shrinking (that is the antialiasing) and cut off at
    the box, as torch.nn.functional.interpolate(antialias=True) on the cut-out box does.
    """
    device = start.device
    scale = (length / size).view(-1, 1, 1)  # [B,1,1] source pixels an output pixel
    centre = (torch.arange(size, device=device) + 0.5).view(1, -1, 1) * scale  # [B,S,1] in the box
    pixel = torch.arange(source, device=device).view(1, 1, -1) - start.view(-1, 1, 1)  # [B,1,source]
    distance = (pixel + 0.5 - centre) / scale.clamp(min=1.0)  # [B,S,source]
    weights = _FILTERS[interpolation](distance)
    weights *= (pixel >= 0) & (pixel < length.view(-1, 1, 1))
    return weights / weights.sum(dim=2, keepdim=True)


def _triangle(distance: Tensor) -> Tensor:
    return distance.abs_().neg_().add_(1.0).clamp_(min=0.0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, which torch and Pillow use when antialiasing."""
    x = distance.abs_()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}
