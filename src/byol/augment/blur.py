"""Gaussian blur with a sigma per image, as products with a small banded matrix."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# Each block of output pixels is a product of its own input pixels (the block and a radius to either
# side), which leaves out the zeros that fill most of the whole side's matrix.
_BLOCK = 16
# Smaller taps change no pixel. Numbers too small for float32's usual form come of them, and with those an
# Intel processor takes ten times as long for the products (sigmas of 0.14 to 0.85 at radius 11).
_SMALLEST_TAP = 1e-12


def kernel_radius(size: int, smallest: int = 1) -> int:
    """Return the radius of BYOL's blur at this image side: 11 at 224 (kernel 23), at least `smallest`."""
    return max(smallest, size // 20)


def gaussian_blur(
    images: Tensor, sigma: Tensor, border: Literal["reflect", "constant"] = "reflect"
) -> Tensor:
    """Blur each image by its own sigma: torchvision's `gaussian_blur`, or the official one.

    Args:
        images: [B,C,S,S], S at least 2.
        sigma: [B] in pixels; 0 leaves an image as it is.
        border: "reflect", as torchvision; "constant": zeros around the image, and nothing happens below
            20 pixels, where the radius is 0, as in the official code.
    """
    batch, channels, size, _ = images.shape
    radius = kernel_radius(size, smallest=1 if border == "reflect" else 0)
    window, missing = _BLOCK + 2 * radius, -size % _BLOCK
    band = _taps(sigma, radius)[:, _tap_indices(radius, sigma.device)]  # [B,window,block]
    padded = F.pad(F.pad(images, (radius,) * 4, mode=border), (0, missing, 0, missing))
    side = padded.shape[3]
    rows = padded.unfold(2, window, _BLOCK).transpose(3, 4)  # [B,C,blocks,window,side]
    down = band.transpose(1, 2)[:, None, None] @ rows  # [B,C,blocks,block,side]
    columns = down.view(batch, -1, side).unfold(2, window, _BLOCK).transpose(1, 2)
    across = columns @ band[:, None]  # [B,blocks,C*(S+missing),block]
    blurred = across.transpose(1, 2).reshape(batch, channels, size + missing, size + missing)
    return blurred[:, :, :size, :size]


def _taps(sigma: Tensor, radius: int) -> Tensor:
    """Return the normalised kernel at offsets -radius..radius and a last column of zeros [B,2r+2]."""
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    # At the smallest sigma every tap but the middle one is 0: the identity.
    taps = torch.exp(-0.5 * (offset / sigma.clamp(min=1e-3)[:, None]) ** 2)
    taps = taps / taps.sum(dim=1, keepdim=True)
    return F.pad(torch.where(taps < _SMALLEST_TAP, 0.0, taps), (0, 1))


def _tap_indices(radius: int, device: torch.device) -> Tensor:
    """Return [window,block]: the tap from an input pixel of a window to an output pixel of its block."""
    window = torch.arange(_BLOCK + 2 * radius, device=device)
    tap = window[:, None] - window[None, :_BLOCK]
    return torch.where((tap >= 0) & (tap <= 2 * radius), tap, 2 * radius + 1)
