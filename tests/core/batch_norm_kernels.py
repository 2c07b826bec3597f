"""torch's SyncBatchNorm on CPU tensors, whose kernels torch has for GPUs only.

What it does between processes stays torch's own code (`torch/nn/modules/_functions.py`); its five
steps within a process are written out here.
"""

from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

KERNELS = torch.library.Library("aten", "IMPL")


def synchronize_on_cpus() -> None:
    """Let SyncBatchNorm take CPU tensors, and all who would refuse it there; for the rest of the process."""
    for kernel in (stats, gather_stats_with_counts, elemt, backward_reduce, backward_elemt):
        KERNELS.impl(f"batch_norm_{kernel.__name__}", kernel, "CPU")
    # Those who ask: the learner, DistributedDataParallel, and SyncBatchNorm, which also takes tensors of the
    # device that an extension has named.
    mock.patch.object(nn.Parameter, "is_cuda", True, create=True).start()
    mock.patch.object(DistributedDataParallel, "_passing_sync_batchnorm_handle").start()
    mock.patch.object(torch._C, "_get_privateuse1_backend_name", return_value="cpu").start()
    # An extension tells autocast what it can: here that is asked of the CPU.
    mock.patch.object(
        torch.cpu, "get_amp_supported_dtype", create=True, return_value=[torch.bfloat16]
    ).start()


def by_channel(values: Tensor) -> Tensor:
    """Return the values [B,C,...] as a row a channel [C,N]."""
    return values.transpose(0, 1).flatten(1)


def along(channels: Tensor, values: Tensor) -> Tensor:
    """Return numbers per channel [C] as [1,C,1,...], with as many dimensions as `values`."""
    return channels.view(1, -1, *[1] * (values.ndim - 2))


def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and 1 / standard deviation per channel."""
    rows = by_channel(x)
    return rows.mean(1), (rows.var(1, correction=0) + eps).rsqrt()


def gather_stats_with_counts(
    x: Tensor,
    means: Tensor,
    inverse_stds: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the statistics over all processes from those of each [processes,C]; move the running ones."""
    shares = (counts / counts.sum())[:, None]
    mean = (shares * means).sum(0)
    squares = inverse_stds**-2 - eps + means**2
    var = (shares * squares).sum(0) - mean**2
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * counts.sum() / (counts.sum() - 1), momentum)
    return mean, (var + eps).rsqrt()


def elemt(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, inverse_std: Tensor, eps: float
) -> Tensor:
    """Return the normalised values."""
    normalized = (x - along(mean, x)) * along(inverse_std, x)
    if weight is None or bias is None:
        return normalized
    return normalized * along(weight, x) + along(bias, x)


def backward_reduce(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    inverse_std: Tensor,
    weight: Tensor | None,
    input_wanted: bool,
    weight_wanted: bool,
    bias_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return this process's sums of the gradient dy and of dy (x - mean), and the parameters' gradients."""
    sum_dy = by_channel(gradient).sum(1)
    sum_dy_xmu = by_channel(gradient * (x - along(mean, x))).sum(1)
    return sum_dy, sum_dy_xmu, sum_dy_xmu * inverse_std, sum_dy.clone()


def backward_elemt(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    inverse_std: Tensor,
    weight: Tensor | None,
    sum_dy: Tensor,
    sum_dy_xmu: Tensor,
    count: Tensor,
) -> Tensor:
    """Return the gradient of the values, from sums over all processes."""
    total = count.sum()
    slope = sum_dy_xmu / total * inverse_std**2
    centred = gradient - along(sum_dy / total, x) - (x - along(mean, x)) * along(slope, x)
    scale = inverse_std if weight is None else inverse_std * weight
    return centred * along(scale, x)
