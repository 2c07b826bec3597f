"""Losses between the cells of two feature maps, given which of them belong together."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from byol.core.processes import several_processes


def pixel_consistency(prediction: Tensor, target: Tensor, positives: Tensor) -> Tensor:
    """Return 2 - 2 cos of each image [B], the mean over its positive pairs (PixPro, equation 4).

    Its gradient is that of the official code's -2 cos. An image without a positive pair has 0.

    The sum over pairs of p_i t_j is that of p_i by the sum of its own t_j: there is never a product for
    every pair, let alone one for every pair and channel.

    Args:
        prediction: [B,D,h,w], of the first view; with gradient.
        target: [B,D,h,w], of the second view.
        positives: [B,h w,h w] bool, cells of the first view by cells of the second.
    """
    prediction, target = _cells(prediction), _cells(target)  # [B,N,D]
    chosen = positives.to(prediction.dtype)
    together = torch.bmm(chosen, target)  # [B,N,D]
    pairs = chosen.sum(dim=(1, 2))  # [B]
    cosine = (prediction * together).sum(dim=(1, 2)) / pairs.clamp(min=1)
    return torch.where(pairs > 0, 2 - 2 * cosine, 0.0)


def pixel_contrast(projection: Tensor, target: Tensor, positives: Tensor, temperature: float = 0.3) -> Tensor:
    """Return PixContrast's loss of each image [B]: cells that belong together, against all of the other view.

    Of every cell i with positives, -log(sum over positives j of exp(cos_ij / T) / sum over all j), and the
    mean over such cells (PixPro, equation 2). An image without a positive pair has 0.

    Args:
        projection: [B,D,h,w], of the first view; with gradient.
        target: [B,D,h,w], of the second view.
        positives: [B,h w,h w] bool, cells of the first view by cells of the second.
        temperature: T, more than 0.
    """
    similarity = torch.bmm(_cells(projection), _cells(target).transpose(1, 2)) / temperature  # [B,N,N]
    has_positive = positives.any(dim=2)  # [B,N]
    # Cells without positives get all: the logarithm of nothing has no gradient, not even times zero.
    chosen = positives | ~has_positive[:, :, None]
    lowest = torch.finfo(similarity.dtype).min
    positive = similarity.masked_fill(~chosen, lowest).logsumexp(dim=2)  # [B,N]
    loss = similarity.logsumexp(dim=2) - positive
    return loss.sum(dim=1) / has_positive.sum(dim=1).clamp(min=1)


def matched_images(positives: Tensor) -> Tensor:
    """Return what a sum of losses over images is divided by: the number of images with a positive pair, or 1.

    In several processes it is the mean number in a process: the loss is then of all their images once
    DistributedDataParallel has averaged gradients.

    Args:
        positives: [B,h w,h w] bool.
    """
    count = positives.flatten(1).any(dim=1).sum(dtype=torch.float32)
    if several_processes():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    # Less than one image a process is possible where there are several of them.
    return torch.where(count > 0, count, 1.0)


def _cells(feature_map: Tensor) -> Tensor:
    """Return the normalised vectors [B,h w,D] of a map [B,D,h,w], row by row, in float32 at least."""
    precise = torch.promote_types(feature_map.dtype, torch.float32)
    return F.normalize(feature_map.to(precise).flatten(2), dim=1).transpose(1, 2)
