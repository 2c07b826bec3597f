"""Losses between a prediction and a target projection, both [B,D]."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine per row [B], in float32 where the inputs are of lower precision."""
    precise = torch.promote_types(first.dtype, torch.float32)
    return (F.normalize(first.to(precise), dim=-1) * F.normalize(second.to(precise), dim=-1)).sum(dim=-1)


def regression_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Return |normalise(p) - normalise(z)|^2 = 2 - 2 cos per image [B], 0 to 4 (BYOL, equation 2)."""
    return 2 - 2 * cosine(prediction, target)


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Return -cos per image [B], -1 to 1 (SimSiam, equation 1)."""
    return -cosine(prediction, target)
