"""A run in two processes, or one that accumulates, is the run of one process, weight by weight."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import byol
from byol.rundir import RunDirectory
from byol.training.checkpoint import load
from tests.training.whole_run import same_everywhere

PROJECT = Path(__file__).parents[2]
STEPS = 6
SETTINGS: dict[str, Any] = {
    "data": "digits",
    "backbone": "resnet8_16",
    "normalization": "group",
    "projection_size": 16,
    "projection_hidden_size": 32,
    "batch_size": 32,
    "epochs": f"{STEPS}st",
    "warmup": "2st",
    "base_lr": 4,
    "log_every": "2st",
    "knn_every": "0",
    "checkpoint_every": "0",
    "logger": "none",
    "online_probe": "true",
}

pytestmark = pytest.mark.slow


def flags(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def end_of(run: Path) -> dict[str, Tensor]:
    state = load(RunDirectory(run).last_checkpoint)
    return {**state["learner"], **state["online_probe"]["classifier"]}


METHODS: dict[str, dict[str, Any]] = {"byol": {}, "pixpro": {"method": "pixpro", "instance_weight": 1}}


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alone(method: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """One process, without accumulation."""
    run = tmp_path_factory.mktemp("alone") / "run"
    state = in_one_process(run, {**SETTINGS, **METHODS[method]})
    start = load_file(RunDirectory(run).initial_weights)["conv1.weight"]
    assert not torch.allclose(start, state["online.backbone.net.conv1.weight"].float(), rtol=0.01)
    return state


def in_one_process(out: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        same_everywhere(patch.setattr)
        return end_of(byol.pretrain(**settings, devices=1, out=str(out)).path)


def in_two_processes(out: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    words = flags({**settings, "devices": 2, "out": out})
    command = [sys.executable, "-m", "tests.training.whole_run", "pretrain", *words]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "still there at exit" not in done.stderr
    return end_of(out)


@pytest.mark.parametrize(
    ("train", "accumulate"),
    [(in_one_process, 2), (in_two_processes, 1), (in_two_processes, 2)],
    ids=["one-accumulating", "two", "two-accumulating"],
)
def test_same_weights(
    train: Callable[[Path, dict[str, Any]], dict[str, Tensor]],
    accumulate: int,
    method: str,
    alone: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    """Target and predictor among them. The same steps in another order of sums: 1e-10, in float64."""
    state = train(tmp_path / "run", {**SETTINGS, **METHODS[method], "accumulate": accumulate})
    assert state.keys() == alone.keys() and state["target.step"] == STEPS
    for name, weight in alone.items():
        torch.testing.assert_close(state[name], weight, rtol=1e-10, atol=1e-10, msg=name)
