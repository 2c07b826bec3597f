"""A tiny network and run directories on scikit-learn's digits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from byol.augment.evaluation import Preprocess
from byol.bundle import save_bundle
from byol.core.backbone import Backbone
from byol.data.digits import open_digits
from byol.data.source import Source
from byol.rundir import RunDirectory

PREPROCESS = Preprocess(8, mean=(0.3,), std=(0.35,), interpolation="bilinear")


def tiny_net(seed: int = 0, channels: int = 1) -> nn.Module:
    """Convolutions with batch norm and dropout: everything that train mode would disturb."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
        )


def tiny_backbone(seed: int = 0, channels: int = 1) -> Backbone:
    return Backbone(tiny_net(seed, channels), 8, channels=channels, preprocess=PREPROCESS)


@pytest.fixture
def preprocess() -> Preprocess:
    return PREPROCESS


@pytest.fixture
def make_net() -> Callable[..., nn.Module]:
    return tiny_net


@pytest.fixture
def make_backbone() -> Callable[..., Backbone]:
    return tiny_backbone


@pytest.fixture
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture(scope="session")
def digits() -> Source:
    return open_digits()


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Write a run directory as training leaves it: settings, bundle, weights of step 0."""

    def make(name: str = "run", backbone: Backbone | None = None, **settings: Any) -> RunDirectory:
        run = RunDirectory(tmp_path / name)
        run.checkpoints.mkdir(parents=True)
        run.write_config({"data": "digits", "method": "byol", "holdout": 0.1, "seed": 3, **settings})
        origin = {"method": "byol", "data": "digits", "epoch": 7.0, "seed": 3}
        save_bundle(run.model, backbone or tiny_backbone(1), origin)
        save_file(tiny_net(2).state_dict(), run.initial_weights)
        return run

    return make
