"""A tiny network, and datasets that tell what was asked of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class Recorded(Dataset[Any]):
    """Images in memory; `seen` lists the indices in the order in which they were read."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        self.seen.append(index)
        return self.images[index]


def tiny_net() -> nn.Sequential:
    """A convolution with batch norm, averaged over space, and a classifier after that."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


@pytest.fixture
def make_net() -> Callable[[], nn.Sequential]:
    """Return a function that makes the tiny network from the same weights every time."""

    def make() -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return tiny_net()

    return make


@pytest.fixture
def recorded() -> Callable[..., Recorded]:
    """Return a function that makes a recorded dataset of random images."""

    def make(count: int, size: int = 8, dtype: torch.dtype = torch.float32) -> Recorded:
        images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))
        return Recorded(images.to(dtype))

    return make
