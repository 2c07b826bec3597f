"""Kernels are timed in a run on a GPU, nowhere else, and not where they are to be deterministic."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.backends import cudnn

import byol
from byol.training import kernels
from byol.training.kernels import kernels_timed
from byol.training.module import Pretraining


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("gpu", "deterministic", "timed"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_when_kernels_are_timed(
    gpu: bool, deterministic: bool, timed: bool, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(cudnn, "deterministic", deterministic)
    monkeypatch.setattr(cudnn, "benchmark", before)
    with kernels_timed():
        assert cudnn.benchmark == (timed or before)
    assert cudnn.benchmark == before
    monkeypatch.setattr(cudnn, "deterministic", False)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with kernels_timed():
        assert cudnn.benchmark == before


def test_they_are_in_every_step_of_a_run(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = Pretraining.training_step, []

    def training_step(self: Pretraining, *arguments: Any) -> torch.Tensor:
        seen.append(cudnn.benchmark)
        return original(self, *arguments)

    class OnAGpu:
        def __getattr__(self, name: str) -> Any:
            return (lambda: True) if name == "is_available" else getattr(torch.cuda, name)

    class Torch:
        cuda = OnAGpu()

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    monkeypatch.setattr(Pretraining, "training_step", training_step)
    monkeypatch.setattr(kernels, "torch", Torch())
    byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "epochs": "3st", "knn_every": "0"})
    assert seen == [True] * 3 and not cudnn.benchmark
