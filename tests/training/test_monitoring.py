"""The alarm, the progress line, and the numbers that answer "is it working?"."""

import io
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import byol
from byol.config import PretrainConfig
from byol.core.learner import BYOL
from byol.rundir import RunDirectory
from byol.training import building
from byol.training.callbacks import Monitor
from byol.training.clock import Clock
from byol.training.preparation import prepare_data
from byol.training.progress import Progress
from byol.training.resolution import Lengths, resolve
from byol.training.watch import Watch, has_collapsed
from byol.types import StepOutput


class WithoutPredictor(BYOL):
    """BYOL without its predictor collapses (paper, table 5b)."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.predictor = nn.Identity()  # type: ignore[assignment]


LONGER = {
    "batch_size": 128,
    "epochs": "10",
    "log_every": "5st",
    "knn_every": "0",
    "base_lr": 4e-3,
    "tau": 0.99,
    "projection_size": 64,
    "projection_hidden_size": 256,
}


def test_alarm_fires_without_predictor_and_names_cause_and_remedy(
    tiny: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(building, "BYOL", WithoutPredictor)
    run = byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, **LONGER})
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert len(lines) == 1
    assert "collapsed" in lines[0] and "--base-lr" in lines[0] and "predictor" in lines[0]
    assert any(record.get("collapsed") for record in run.metrics())


def test_alarm_stays_silent_on_a_healthy_run(
    tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, **LONGER})
    assert "warning" not in capsys.readouterr().err
    assert min(record["std"] for record in run.metrics()) > 0.4


# The spread that runs of the recipe `digits` log with group normalisation, every 20 steps (docs/log.md).
# 30 epochs; the warm-up ends at step 105.
RECOVERED = (0.308, 0.136, 0.169, 0.231, 0.252, 0.28, 0.312, 0.332, 0.341, 0.369, 0.378, 0.379, 0.402)
COLLAPSED = {
    "without predictor": (0.224, 0.178, 0.199, 0.177, 0.151, 0.15, 0.155, 0.149, 0.145, 0.143, 0.136, 0.131),
    "the same, seed 1": (0.277, 0.251, 0.239, 0.229, 0.201, 0.209, 0.197, 0.205, 0.193, 0.189, 0.187, 0.185),
    "weights not standardised": (0.115, 0.048, 0.039, 0.038, 0.038, 0.039, 0.039, 0.045, 0.049, 0.051, 0.055),
    "neither": (0.065, 0.035, 0.043, 0.045, 0.043, 0.04, 0.038, 0.04, 0.036, 0.039, 0.035, 0.035, 0.035),
}
# 15 epochs at twice the learning rate; the warm-up ends at step 52.
RECOVERING = (0.088, 0.065, 0.119, 0.165, 0.182, 0.196, 0.214, 0.215, 0.223, 0.223)


def monitored(
    spreads: Iterable[float], out: Path, warmup: int = 105, normalization: str = "group", first_step: int = 20
) -> str:
    """Return what is said about a run that logs these spreads, every 20 steps from one on."""
    out.mkdir(exist_ok=True)
    stream = io.StringIO()
    durations = Lengths(total=420, warmup=warmup, log=20, knn=0, checkpoint=0, backbone=0)
    progress = Progress(durations.total, stream)
    monitor = Monitor(RunDirectory(out), progress, Clock(), lambda record: None, durations, None)
    for step, spread in zip(count(first_step, 20), spreads, strict=False):
        learner = SimpleNamespace(tau=0.99, backbone=SimpleNamespace(normalization=normalization))
        module = SimpleNamespace(step=step, learner=learner, last_learning_rate=0.1)
        module.settings = SimpleNamespace(total_steps=durations.total, warmup_steps=warmup)
        module.plan = SimpleNamespace(steps_per_epoch=14)
        summary = {"loss": 1.0, "std": spread}
        module.watch = SimpleNamespace(nonfinite=False, summary=summary.copy)
        monitor(module)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize(("spreads", "warmup"), [(RECOVERED, 105), (RECOVERING, 52)])
def test_alarm_stays_silent_where_the_spread_recovers(
    spreads: Iterable[float], warmup: int, tmp_path: Path
) -> None:
    """Without batch statistics it dips early. With them so low a spread is a collapse."""
    assert "warning" not in monitored(spreads, tmp_path / "group", warmup)
    assert "warning" in monitored(spreads, tmp_path / "batch", warmup, normalization="batch")


@pytest.mark.parametrize("run", COLLAPSED)
def test_alarm_sounds_where_the_spread_stays_low(run: str, tmp_path: Path) -> None:
    told = monitored(COLLAPSED[run], tmp_path / "run")
    assert told.count("warning: the features have collapsed") == 1
    marked = [record["step"] for record in RunDirectory(tmp_path / "run").metrics() if "collapsed" in record]
    assert marked[0] in (120, 140), "one of the first two records after the warm-up"


def test_a_resumed_run_remembers_its_spreads(tmp_path: Path) -> None:
    """One record alone does not tell where the spread is going."""
    monitored(RECOVERING[:2], tmp_path / "run")
    assert "warning" not in monitored(RECOVERING[2:], tmp_path / "run", 52, first_step=60)


def test_without_batch_statistics_few_records_do_not_sound_the_alarm() -> None:
    """They do not tell whether the spread rises; with batch statistics one low spread is a collapse."""
    assert not has_collapsed({120: 0.15}, "group") and has_collapsed({120: 0.15}, "batch")
    assert not has_collapsed({20: 0.15, 60: 0.15, 120: 0.15}, "group"), "two in the second half"
    assert has_collapsed({60: 0.15, 80: 0.15, 120: 0.15}, "group")


def test_a_rise_counts_in_the_second_half_of_the_steps_only() -> None:
    """The spread has fallen to 0.05 and risen to 0.15, where it stays: that of a collapsed learner."""
    spreads = dict(zip(range(20, 420, 20), (0.3, 0.05, 0.08, 0.11, *[0.15] * 16), strict=True))
    sounds = [step for step in spreads if has_collapsed(until(spreads, step), "group")]
    # At 180 the second half begins at 90, behind the rise.
    assert sounds == list(range(180, 420, 20))


def until(spreads: dict[int, float], last: int) -> dict[int, float]:
    return {step: spread for step, spread in spreads.items() if step <= last}


def test_unlabelled_data_are_watched_by_spread_and_rank_only(
    tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8)
    run = byol.pretrain(images, out=str(tmp_path / "run"), **tiny)
    assert "100 images to train on, 0 held out" in capsys.readouterr().err
    labelled = TensorDataset(images, torch.arange(100) % 2)
    byol.pretrain(labelled, resume=run.path)  # labels that have come by now hold nothing out
    assert not any("knn" in record for record in run.metrics())
    assert all({"std", "rank", "cosine"} <= record.keys() for record in run.metrics())


def test_watch_averages_the_loss_since_the_last_summary() -> None:
    watch = Watch()
    projections = torch.randn(8, 4)
    for loss in (1.0, 2.0, 6.0):
        watch.see(StepOutput(torch.tensor(loss), projections, projections, projections))
    assert watch.summary()["loss"] == pytest.approx(3.0)
    watch.see(StepOutput(torch.tensor(5.0), projections, projections, projections))
    summary = watch.summary()
    assert summary["loss"] == pytest.approx(5.0) and summary["cosine"] == pytest.approx(1.0)
    assert not watch.nonfinite
    watch.see(StepOutput(torch.tensor(float("inf")), projections, projections, projections))
    assert watch.nonfinite


def record(step: int) -> dict[str, Any]:
    return {"step": step, "epoch": 1.0, "loss": 2.5, "images_per_second": 1234.4, "data_wait": 0.037}


def test_plain_lines_where_the_output_is_no_terminal() -> None:
    stream = io.StringIO()
    progress = Progress(100, stream, plain_lines=4)
    progress.show({"step": 1, "epoch": 0.1, "knn": 0.5})
    for step in range(1, 101):
        progress.show(record(step))
    lines = stream.getvalue().splitlines()
    assert 4 <= len(lines) <= 6 and "\r" not in stream.getvalue()
    first = "step 1/100  epoch 1.0  loss 2.500  kNN 50.0%  1234 images/s  waiting for data 4%"
    assert lines[0].startswith(first)
    assert lines[-1].endswith("done")


def test_one_line_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress(100, stream)
    for step in range(1, 101):
        progress.show(record(step))
    progress.close()
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().count("\r") == 100


def test_clock_tells_waiting_from_working(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    clock = Clock()
    for _ in range(2):
        now += 1.0  # waiting for a batch
        clock.batch_starts()
        now += 3.0  # a step on 8 images
        clock.batch_ends(8)
        with clock.set_aside():
            now += 100.0  # measuring and saving count as neither
        clock.loop_continues()
    assert clock.read() == {"seconds": 8.0, "images_per_second": 2.0, "data_wait": 0.25}
    now += 4.0
    assert clock.read() == {"seconds": 12.0, "images_per_second": 0.0, "data_wait": 0.0}


@pytest.mark.parametrize(
    ("knn_every", "epochs", "streamed", "measured"),
    [
        (None, "20st", False, []),  # 640 images
        (None, "50st", False, [41, 50]),  # 1,600
        (None, "50st", True, []),
        ("10st", "20st", False, [10, 20]),
    ],
)
def test_a_few_steps_on_many_images_are_not_spent_on_measuring(
    knn_every: str | None,
    epochs: str,
    streamed: bool,
    measured: list[int],
    tiny: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Each measurement takes 1,297 images through the network; a tenth of 20 steps would be 64 trained on."""
    settings = {**tiny, "batch_size": 32, "epochs": epochs, "knn_every": knn_every, "preset": "small"}
    settings |= {"in_memory": "off", "num_workers": 0, "image_size": 8} if streamed else {}
    run = byol.pretrain("digits", out=str(tmp_path / "run"), **settings)
    assert [record["step"] for record in run.metrics() if "knn" in record] == measured


def test_runs_of_usual_length_are_measured_ten_times() -> None:
    data = prepare_data("digits", PretrainConfig())
    for settings, expected in (({"epochs": "20"}, "10%"), ({"knn_every": "0"}, "0")):
        assert resolve(PretrainConfig(batch_size=64, **settings), data).knn_every == expected
