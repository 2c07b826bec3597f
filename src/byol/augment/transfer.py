"""Send what the host has drawn to another device, all at once and without waiting for it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from byol.augment.draw import AnyDraw

_ALIGNMENT = 16
"""In bytes: compiled code reads so many at a time, and would copy tensors that begin elsewhere."""


def sent(draws: Sequence[AnyDraw], device: torch.device) -> list[AnyDraw]:
    """Return draws, all from one device, on another one; from the host in one copy."""
    from_host = all(tensor.device.type == "cpu" for draw in draws for tensor in draw.tensors())
    if from_host and device.type != "cpu":
        return sent_at_once(draws, device)
    return [draw.to(device) for draw in draws]


def sent_numbers(numbers: Tensor, device: torch.device) -> Tensor:
    """Return numbers from the host on a device, without waiting for a GPU, as `sent_at_once` does."""
    on_gpu = device.type == "cuda"
    here = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=on_gpu).copy_(numbers)
    return here.to(device, non_blocking=on_gpu)


def sent_at_once(draws: Sequence[AnyDraw], device: torch.device) -> list[AnyDraw]:
    """Return draws from the host on a device, bit for bit: packed into a tensor, copied, and unpacked there.

    The copy to a GPU is from pinned memory: from other memory the host would copy it itself, or wait. torch
    keeps that memory until the copy has happened. What is unpacked is contiguous.
    """
    tensors = [tensor for draw in draws for tensor in draw.tensors()]
    on_gpu = device.type == "cuda"
    size = sum(map(_padded, tensors))
    packed = torch.empty(size, dtype=torch.uint8, pin_memory=on_gpu)
    for part, tensor in zip(_parts(packed, tensors), tensors, strict=True):
        part.copy_(tensor)
    arrived = _parts(packed.to(device, non_blocking=on_gpu), tensors)
    return [draw.map(lambda _: next(arrived)) for draw in draws]


def _parts(packed: Tensor, tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the parts of packed bytes that are of the types and shapes of tensors, in their order."""
    start = 0
    for tensor in tensors:
        yield packed[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        start += _padded(tensor)


def _padded(tensor: Tensor) -> int:
    """Return the bytes of a tensor, up to where the next one may begin."""
    return -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
