"""What a learner does with the other processes: one batch of all their images, one batch norm over them."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from byol.errors import UserError


def several_processes() -> bool:
    """Say whether there is a process group of more than one."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


# Eager under torch.compile, which does not trace collectives inside autograd functions.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def gathered(*vectors: Tensor, check_sizes: bool = False) -> tuple[Tensor, ...]:
    """Return tensors [B,D] with those of all processes one after the other, [B x processes,D].

    The gradient is the sum over the processes' losses: where each computes the same loss of the whole
    batch, and DistributedDataParallel averages their gradients, the result is the gradient of one
    process that has the whole batch. One process alone gets its own tensors back.

    Args:
        vectors: of one shape.
        check_sizes: make sure that all processes have batches of one size; the host waits for that.

    Raises:
        UserError: they have not; all processes raise it.
    """
    if not several_processes():
        return vectors
    if check_sizes:
        _require_one_size(vectors[0])
    whole: Tensor = _Gather.apply(torch.stack(vectors))  # [len(vectors),B x processes,D]
    return whole.unbind()


def synchronize_batch_norms(module: nn.Module) -> None:
    """Turn every batch norm inside a module into one that computes over all processes, in place.

    By timm's conversion: many of its networks have norms that contain the activation behind them, which
    torch's own conversion loses. Norms that are synchronised already stay: timm's conversion would lose the
    activation of one that it has made. Forward hooks stay, which it would lose: a norm may be the layer whose
    output is taken.
    """
    from timm.layers import convert_sync_batchnorm

    for name, norm in list(module.named_modules(remove_duplicate=False)):
        if isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm):
            synchronized = convert_sync_batchnorm(norm)
            synchronized._forward_hooks.update(norm._forward_hooks)
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, synchronized)


class _Gather(torch.autograd.Function):
    """[V,B,D] of each process to [V,B x processes,D] of all."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local)
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Our images are in every process's loss.
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size(), dim=1)[dist.get_rank()]


def _require_one_size(local: Tensor) -> None:
    """Raise unless all processes have batches of one size; without this, they would wait for ever."""
    size = torch.tensor([local.shape[0]], device=local.device)
    sizes = [torch.empty_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    found = [int(each) for each in sizes]
    if len(set(found)) > 1:
        raise UserError(f"gather_projections needs batches of one size in all processes, not {found}")
