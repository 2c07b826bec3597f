"""Gaussian blur with a sigma per image, as two banded matrix products."""

import functools

import torch
from torch import Tensor


def kernel_radius(size: int) -> int:
    """Return the radius that BYOL's blur has at this image side: 11 at 224 (kernel 23), at least 1."""
    return max(1, size // 20)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image by its own sigma, with reflected borders: torchvision's `gaussian_blur`.

    Args:
        images: [B,C,S,S].
        sigma: [B] in pixels; 0 leaves an image as it is.
    """
    size = images.shape[-1]
    taps = _taps(sigma, kernel_radius(size))
    indices = _tap_indices(size, kernel_radius(size)).to(images.device)
    matrix = sum(taps[:, index] for index in indices)  # [B,S,S]
    assert isinstance(matrix, Tensor)
    batch, channels = images.shape[:2]
    across = images.reshape(batch, channels * size, size) @ matrix.transpose(1, 2)
    return matrix[:, None] @ across.view(batch, channels, size, size)


def _taps(sigma: Tensor, radius: int) -> Tensor:
    """Return the normalised kernel at offsets -radius..radius and a last column of zeros [B,2r+2]."""
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    # At the smallest sigma every tap but the middle one underflows to 0: the identity.
    taps = torch.exp(-0.5 * (offset / sigma.clamp(min=1e-3)[:, None]) ** 2)
    taps = taps / taps.sum(dim=1, keepdim=True)
    return torch.nn.functional.pad(taps, (0, 1))


@functools.lru_cache(maxsize=16)
def _tap_indices(size: int, radius: int) -> Tensor:
    """Return [3,S,S]: which tap pixel j lends to output i - itself, and as its own two reflections."""
    output, pixel = torch.arange(size)[:, None], torch.arange(size)[None, :]
    last = size - 1
    offsets = torch.stack([pixel - output, -pixel - output, 2 * last - pixel - output])
    present = offsets.abs() <= radius
    present[1, :, 0] = False  # the border pixels are the mirrors: they have no reflection
    present[2, :, last] = False
    return torch.where(present, offsets + radius, 2 * radius + 1)
