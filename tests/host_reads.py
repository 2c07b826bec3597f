"""How often the host asks for what only the device knows: it waits there each time."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_READS = {
    torch.ops.aten._local_scalar_dense.default,  # .item(), float(), bool()
    torch.ops.aten.equal.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
}


class HostReads(TorchDispatchMode):
    """Counts the operations inside it whose result the host has to wait for, were there a GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in _READS
        return func(*args, **(kwargs or {}))
