"""Training time is that of steps: nothing is compiled, measured, saved or lost in it. What is compiled before
the clock runs leaves the run as it is without that."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException

import byol
from byol.data.batches import Batch
from byol.training import building, callbacks, clock, session, warm_up
from byol.training.clock import Clock
from byol.training.module import Pretraining
from tests.training.test_pretrain import assert_same_run
from tests.training.test_resume import stopping_at


@pytest.fixture
def positions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions of all batches that a step has seen."""
    original, seen = Pretraining.training_step, []

    def training_step(self: Pretraining, batch: Batch, batch_index: int) -> torch.Tensor:
        seen.append(batch.position)
        return original(self, batch, batch_index)

    monkeypatch.setattr(Pretraining, "training_step", training_step)
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        {"online_probe": True},
        {"optimizer": "lars", "accumulate": 2, "target_statistics": "average"},
        {"method": "simsiam", "precision": "bf16"},
        {"image_size": 32, "batch_size": 8, "num_workers": 0, "online_probe": True},
    ],
    ids=str,
)
def test_a_run_with_it_is_the_run_without(
    settings: dict[str, Any],
    tiny: dict[str, Any],
    photographs: Path,
    positions: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = f"folder:{photographs}" if "image_size" in settings else "digits"
    settings = {**tiny, **settings}
    plain = byol.pretrain(data, out=str(tmp_path / "plain"), **settings)
    own_steps = positions.copy()
    monkeypatch.setattr(callbacks, "needs_warm_up", lambda module: True)
    warmed = byol.pretrain(data, out=str(tmp_path / "warmed"), **settings)
    assert positions == [*own_steps, 0, *own_steps]
    assert_same_run(plain.path, warmed.path)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each graph that is compiled: whether the clock was running."""
    found: list[bool] = []
    running = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        found.append(bool(running))
        return graph

    def compile_with_it(self: nn.Module, dynamic: bool | None = None) -> None:
        self._compiled_call_impl = torch.compile(self._call_impl, backend=backend)  # type: ignore[assignment]

    original = Clock.start

    def start(self: Clock) -> None:
        running[:] = [self] if hasattr(self, "began") else []  # not when it is made
        original(self)

    monkeypatch.setattr(building, "use_compile", lambda config: True)
    monkeypatch.setattr(nn.Module, "compile", compile_with_it)
    monkeypatch.setattr(Clock, "start", start)
    return found


def test_nothing_is_compiled_while_the_clock_runs(
    tiny: dict[str, Any], tmp_path: Path, graphs: list[bool]
) -> None:
    byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "online_probe": True})
    assert len(graphs) >= 3 and not any(graphs), "online network, predictor and target"


def test_every_run_of_a_program_is_compiled(tiny: dict[str, Any], tmp_path: Path, graphs: list[bool]) -> None:
    """torch keeps eight graphs of all modules together, and goes on without more of them."""
    for number, normalization in enumerate(["batch", "group"] * 2):
        before, settings = (
            len(graphs),
            {**tiny, "normalization": normalization, "batch_size": 32 + 8 * number},
        )
        byol.pretrain("digits", out=str(tmp_path / str(number)), **{**settings, "epochs": "1st"})
        assert len(graphs) >= before + 3, f"pretraining {number}"


@pytest.mark.parametrize("choice", ["auto", "on"])
def test_where_compiling_fails_a_run_goes_on_without(
    choice: str,
    tiny: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As where Triton does not find libcuda: the same run as one that was never to be compiled."""

    def broken(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        raise AssertionError("libcuda.so cannot found!")

    def compile_with_it(self: nn.Module, dynamic: bool | None = None) -> None:
        self._compiled_call_impl = torch.compile(self._call_impl, backend=broken)  # type: ignore[assignment]

    plain = byol.pretrain("digits", out=str(tmp_path / "plain"), **tiny)  # which a CPU does not compile
    monkeypatch.setattr(building, "use_compile", lambda config: True)
    monkeypatch.setattr(nn.Module, "compile", compile_with_it)
    settings = {**tiny, "out": str(tmp_path / "run"), "compile": choice}
    if choice == "on":
        with pytest.raises(BackendCompilerFailed, match="libcuda"):
            byol.pretrain("digits", **settings)
        return
    run = byol.pretrain("digits", **settings)
    assert "warning: compiling failed" in (told := capsys.readouterr().err) and "libcuda.so" in told
    assert json.loads((run.path / "env.json").read_text())["compiled"] is False
    assert_same_run(plain.path, run.path)


@pytest.mark.parametrize(
    ("what_fails", "what_is_given_up"),
    [("nothing", []), ("views", ["views"]), ("networks", ["views", "all"])],
)
def test_networks_stay_compiled_where_views_alone_cannot_be(
    what_fails: str,
    what_is_given_up: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given_up: list[str] = []
    cured_by = {"nothing": None, "views": "views", "networks": "all"}[what_fails]

    def run_once(*_: Any) -> None:
        if cured_by and cured_by not in given_up:
            raise TorchDynamoException("no code for that")

    views = SimpleNamespace(run_eagerly=lambda: given_up.append("views"))
    module = SimpleNamespace(make_views=views, run_eagerly=lambda: given_up.append("all"))
    monkeypatch.setattr(warm_up, "_run_once", run_once)
    warm_up._run_as_compiled_as_possible(cast(Any, None), cast(Any, module), may_run_eagerly=True)
    assert given_up == what_is_given_up
    told = ["trying again with uncompiled views", "training goes on uncompiled"][: len(given_up)]
    lines = [f"warning: compiling failed (no code for that): {what}" for what in told]
    assert capsys.readouterr().err.splitlines() == lines


def test_seconds_are_those_of_steps_over_all_segments(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a step takes a second."""
    now = [0.0]

    def taking(seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*arguments: Any, **keywords: Any) -> Any:
            now[0] += seconds
            return function(*arguments, **keywords)

        return slow

    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(callbacks, "needs_warm_up", lambda module: True)
    monkeypatch.setattr(callbacks, "warm_up", taking(10_000, callbacks.warm_up))
    monkeypatch.setattr(callbacks, "write_state", taking(1000, callbacks.write_state))
    monkeypatch.setattr(session, "holdout_accuracies", taking(100, session.holdout_accuracies))
    monkeypatch.setattr(Pretraining, "optimizer_step", taking(1, Pretraining.optimizer_step))
    settings = {**tiny, "log_every": "1st", "checkpoint_every": "2st"}
    with stopping_at(3):
        byol.pretrain("digits", out=str(tmp_path / "run"), **settings)
    run = byol.pretrain(resume=tmp_path / "run")
    assert [record["seconds"] for record in run.metrics() if "seconds" in record] == [1, 2, 3, 4, 5, 6]
    assert now[0] == 6 + 2 * 10_000 + 4 * 1000 + 2 * 100
