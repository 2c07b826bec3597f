"""Geometry of a view: antialiased crops as matrix products, affine maps, mirrors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def crop(
    images: Tensor, box: Tensor, flip: Tensor, size: int, interpolation: str, antialias: bool = True
) -> Tensor:
    """Cut a box out of each image and resize it to `size` x `size`, mirrored where asked.

    Equals torchvision's `resized_crop(antialias=True)` followed by `horizontal_flip`, for a whole
    batch with a box each (without antialiasing: TensorFlow's `resize` of the box): resizing is linear
    and separable, so each image is multiplied by one matrix of filter weights a side, and mirroring
    reverses the rows of one of them.

    Args:
        images: [B,C,H,W], float32.
        box: [B,4] integer top, left, height, width.
        flip: [B] bool.
        size: output side S.
        interpolation: "bilinear" or "bicubic".
        antialias: stretch the filter when shrinking.

    Returns:
        [B,C,S,S] float32; bicubic may overshoot the range of the input.
    """
    height, width = images.shape[-2:]
    top, left, box_height, box_width = box.unbind(1)
    place = torch.arange(size, device=box.device) + 0.5  # [S]
    mirrored = torch.where(flip[:, None], size - place, place)  # [B,S]
    rows = _filter_weights(top, box_height, height, place[None], interpolation, antialias)  # [B,S,H]
    columns = _filter_weights(left, box_width, width, mirrored, interpolation, antialias)  # [B,S,W]
    batch, channels = images.shape[:2]
    wide = images.reshape(batch, channels * height, width) @ columns.transpose(1, 2)  # [B,C*H,S]
    return rows[:, None] @ wide.view(batch, channels, height, size)  # [B,C,S,S]


def crop_in_turn(
    images: Tensor, box: Tensor, flip: Tensor, size: int, interpolation: str, antialias: bool = True
) -> Tensor:
    """Return what `crop` does, one image after another, to rounding: a CPU is faster so on large images.

    A matrix of weights has a column for every pixel of a side, of which each output pixel needs a few.
    """
    crops = images.new_empty(*images.shape[:2], size, size)
    resize_one = _resize_antialiased if antialias else resize_by_taps
    for row, (top, left, height, width) in enumerate(box.tolist()):
        inside = images[row, :, top : top + height, left : left + width]
        crops[row] = resize_one(inside, size, interpolation)
    return torch.where(flip[:, None, None, None], crops.flip(3), crops)


def _resize_antialiased(image: Tensor, size: int, interpolation: str) -> Tensor:
    return F.interpolate(image[None], (size, size), mode=interpolation, antialias=True)[0]


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


def resize_bytes(images: Tensor, sides: tuple[int, int], interpolation: str) -> Tensor:
    """Resize uint8 [..,H,W] to `sides`, antialiased and rounded to bytes, as torchvision does.

    A CPU does that in integers, and reads no more of a large image than its bytes.
    """
    from torchvision.transforms.v2 import functional as transforms

    mode = transforms.InterpolationMode(interpolation)
    resized: Tensor = transforms.resize(images, list(sides), mode, antialias=True)
    return resized


def resize_by_taps(image: Tensor, size: int, interpolation: str) -> Tensor:
    """Resize one image [C,H,W] to float32 [C,S,S] without antialiasing: `crop`'s result on the whole image.

    Each output pixel depends on four pixels a side, so that sums of four rows, then of four columns,
    are 5 times as fast as whole matrices. Made for one crop after another in a loader's workers.
    """
    channels, height, width = image.shape
    pixels = image.permute(1, 2, 0).float()  # [H,W,C]
    rows = _weighted_sums(pixels.reshape(height, -1), size, interpolation)  # [S,W*C]
    columns = rows.view(size, width, channels).transpose(0, 1).reshape(width, -1)
    across = _weighted_sums(columns, size, interpolation)  # [S,S*C], output columns first
    return across.view(size, size, channels).permute(2, 1, 0)


def _weighted_sums(lines: Tensor, size: int, interpolation: str) -> Tensor:
    """Return `size` sums of four of the lines [L,N] each, by the filter's weights."""
    length = len(lines)
    centre = (torch.arange(size) + 0.5) * (length / size) - 0.5  # [S] in pixels
    tap = centre.floor().long()[:, None] + torch.arange(-1, 3)  # [S,4]
    weights = _FILTERS[interpolation](tap - centre[:, None]).mul_((tap >= 0) & (tap < length))
    weights.div_(weights.sum(dim=1, keepdim=True))
    # Sums rows without copying them first.
    return F.embedding_bag(tap.clamp_(0, length - 1), lines, per_sample_weights=weights, mode="sum")


def _filter_weights(
    start: Tensor, length: Tensor, source: int, place: Tensor, interpolation: str, antialias: bool
) -> Tensor:
    """Return the weights [B,S,source] that resize pixels start..start+length-1 to the S at `place`.

    The filter is stretched by the scale when shrinking (that is the antialiasing) and cut off at
    the box, as torch.nn.functional.interpolate(antialias=True) on the cut-out box does.

    Args:
        start: [B] first pixel of the box; `length` [B] its number of pixels.
        source: number of pixels that the image has.
        place: [B,S] or [1,S] centres of the output pixels, in output pixels.
        interpolation: "bilinear" or "bicubic".
        antialias: stretch the filter.
    """
    length = length[:, None]
    scale = length / place.shape[1]  # [B,1] source pixels an output pixel
    pixel = torch.arange(source, device=start.device) - start[:, None]  # [B,source] in the box
    inside = ((pixel >= 0) & (pixel < length)).float()
    stretch = scale.clamp(min=1.0) if antialias else torch.ones_like(scale)
    centre = place * scale / stretch  # [B,S]
    distance = ((pixel + 0.5) / stretch)[:, None, :] - centre[:, :, None]  # [B,S,source]
    weights = _FILTERS[interpolation](distance).mul_(inside[:, None, :])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _triangle(distance: Tensor) -> Tensor:
    return distance.abs_().neg_().add_(1.0).clamp_(min=0.0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, which torch and Pillow use when antialiasing, and TensorFlow always."""
    x = distance.abs_()
    inner, outer = x.clamp(max=1.0), x.clamp(1.0, 2.0)  # each polynomial is 0 at the ends of its range
    near = (1.5 * inner - 2.5).mul_(inner).mul_(inner).add_(1.0)
    far = (-0.5 * outer + 2.5).mul_(outer).sub_(4.0).mul_(outer).add_(2.0)
    return near.add_(far)


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}
