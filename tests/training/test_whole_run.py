"""A run in two processes, or one that accumulates, is the run of one process, weight by weight."""

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import byol
from byol.rundir import RunDirectory
from byol.training.checkpoint import load
from tests.ports import free_port
from tests.programs import finished
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
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes each, without and with accumulation: `byol-1` and the like."""
    folder, runs = tmp_path_factory.mktemp("together"), []
    for (method, options), accumulate in product(METHODS.items(), (1, 2)):
        out = folder / f"{method}-{accumulate}"
        words = flags({**SETTINGS, **options, "accumulate": accumulate, "devices": 2, "out": out})
        runs.append((free_port(), words))
    command = [sys.executable, "-m", "tests.training.whole_run", json.dumps(runs)]
    done = finished(command, 400, PROJECT)
    assert done.returncode == 0, done.stderr
    assert "still there at exit" not in done.stderr
    return folder


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


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_have_the_weights_of_one(
    accumulate: int, method: str, alone: dict[str, Tensor], together: Path
) -> None:
    assert_same_weights(end_of(together / f"{method}-{accumulate}"), alone)


def test_accumulation_gives_the_weights_of_one_batch(
    method: str, alone: dict[str, Tensor], tmp_path: Path
) -> None:
    state = in_one_process(tmp_path / "run", {**SETTINGS, **METHODS[method], "accumulate": 2})
    assert_same_weights(state, alone)


def assert_same_weights(state: dict[str, Tensor], alone: dict[str, Tensor]) -> None:
    """Target and predictor among them. The same steps in another order of sums: 1e-10, in float64."""
    assert state.keys() == alone.keys() and state["target.step"] == STEPS
    for name, weight in alone.items():
        torch.testing.assert_close(state[name], weight, rtol=1e-10, atol=1e-10, msg=name)
