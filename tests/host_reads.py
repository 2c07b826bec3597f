"""How often the host asks for what only the device knows: it waits there each time."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS = {
    torch.ops.aten._local_scalar_dense.default,  # .item(), float(), bool()
    torch.ops.aten.equal.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
}
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class HostReads(TorchDispatchMode):
    """Counts the operations inside it whose result the host has to wait for, were there a GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in _READS
        return func(*args, **(kwargs or {}))


class NoBlockingCopies(TorchDispatchMode):
    """Refuses the operations inside it that copy between host and GPU and wait for it: `.to` without
    `non_blocking`, `torch.tensor(..., device="cuda")`, a tensor on the GPU indexed by one that is not there.

    A CPU tensor of no dimensions among others is no copy: it goes along as a number. Copies to the GPU from
    memory that was not pinned inside it are refused, too: larger ones may wait. `to_gpu` counts the others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to_gpu = 0
        self.pinned: list[torch.UntypedStorage] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        counted = [tensor.device.type for tensor in tensors if tensor.ndim > 0 or func in _COPIES]
        if len(set(counted)) > 1 and not (func in _COPIES and _goes_on(args, kwargs)):
            raise AssertionError(f"{func} waits for a copy between {' and '.join(sorted(set(counted)))}")
        if kwargs.get("pin_memory"):
            self.pinned.append(result.untyped_storage())
        if len(set(counted)) > 1:
            self.to_gpu += 1
            self._require_pinned(_source(args))
        return result

    def _require_pinned(self, source: Tensor) -> None:
        # Tensors without numbers say of themselves that they are not.
        if source.untyped_storage()._cdata not in [storage._cdata for storage in self.pinned]:
            raise AssertionError(f"{list(source.shape)} goes to the GPU from memory that is not pinned")


def _goes_on(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Say whether a copy does not wait: to the GPU, not blocking. One to the host waits always."""
    return _source(args).device.type == "cpu" and bool(kwargs.get("non_blocking") or args[2:3] == (True,))


def _source(args: tuple[Any, ...]) -> Tensor:
    source: Tensor = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else args[0]
    return source
