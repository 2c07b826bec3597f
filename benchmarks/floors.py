"""What this machine does at most: multiplications per second and bytes per second, measured."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from byol.core.learner import BYOL

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fastest(work: Callable[[], object], times: int = 10) -> float:
    """Return the seconds of the fastest of some repetitions."""
    work()
    taken = []
    for _ in range(times):
        wait()
        start = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - start)
    return min(taken)


def matrix_rate(precision: torch.dtype = torch.float32, device: torch.device = DEVICE) -> float:
    """Return operations/s of a product of square matrices."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = torch.rand(2, side, side, device=device).to(precision)
    return 2 * side**3 / fastest(lambda: left @ right)


def convolution_rate(precision: torch.dtype = torch.float32) -> float:
    """Return operations/s of the 3x3 convolutions of 128 channels that a ResNet consists of.

    Matrix products and convolutions come from different libraries on a CPU: either may be the faster.
    """
    batch = 512 if DEVICE.type == "cuda" else 64
    images = torch.rand(batch, 128, 16, 16, device=DEVICE).to(precision).to(memory_format=torch.channels_last)
    weight = torch.rand(128, 128, 3, 3, device=DEVICE).to(precision).to(memory_format=torch.channels_last)
    with torch.no_grad():
        taken = fastest(lambda: F.conv2d(images, weight, padding=1))
    return 2 * batch * 16 * 16 * 128 * 128 * 9 / taken


def copy_bandwidth(device: torch.device = DEVICE) -> float:
    """Return bytes/s, read and written together, of a large copy."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest(lambda: target.copy_(source))


def step_operations(net: nn.Module, size: int, hidden: int, channels: int = 3) -> int:
    """Return the operations of the matrix products and convolutions of one image's share of a BYOL step.

    Counted in a step: two online passes, forward and backward, and two of the target, the heads included.
    """
    learner = BYOL(net, size, hidden_layer=None, projection_hidden_size=hidden, channels=channels)
    views = torch.zeros(2, 2, channels, size, size, device=next(net.parameters()).device)
    with FlopCounterMode(display=False) as counter:
        learner.compare_in_turn(*views).loss.backward()
    return int(counter.get_total_flops() // 2)


def wait() -> None:
    """Wait until the device has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
