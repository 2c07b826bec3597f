"""Memory stays with the process between steps, and leaves it afterwards."""

import resource
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from byol.training.allocation import memory_kept

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux's C library")


def page_faults(steps: int = 3) -> int:
    """Return how many pages the system handed out for steps of a network with large activations."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(4)))
    images = torch.randn(16, 8, 128, 128)  # 8 MiB, as every activation
    for step in range(2 * steps):
        if step == steps:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        net(images).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_blocks_are_used_again_and_given_back() -> None:
    at_first = resident()
    with memory_kept():
        faults = page_faults()
        assert resident() - at_first > 2**25
    assert resident() - at_first < 2**25
    assert 10 * faults < page_faults()
