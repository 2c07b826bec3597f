"""A tiny convolutional network, and learners around it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from byol.core.learner import BYOL


def tiny_net(channels: int = 3) -> nn.Sequential:
    """Two convolutions with batch norm, averaged over space, and a classifier after that."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_net() -> Callable[..., nn.Sequential]:
    return tiny_net


@pytest.fixture
def make_learner() -> Callable[..., BYOL]:
    """Return a function that wraps the tiny network, or another, with small heads."""

    def make(net: nn.Module | None = None, **settings: Any) -> BYOL:
        defaults = {"image_size": 8, "projection_size": 5, "projection_hidden_size": 12}
        return BYOL(net or tiny_net(), **{**defaults, **settings})

    return make


@pytest.fixture
def two_views() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 6, 3, 8, 8, generator=generator)
    return first, second
