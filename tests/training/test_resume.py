"""Interrupted runs: however they end, resuming gives what an uninterrupted run gives."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import byol
from byol.cli import main
from byol.data.decode import unreadable
from byol.data.folder import FileImages
from byol.rundir import RunDirectory
from byol.training import callbacks
from byol.training.callbacks import Monitor, StopOnSignal
from byol.training.checkpoint import load
from byol.training.errors import Interrupted
from tests import programs
from tests.programs import Program
from tests.training.test_pretrain import assert_same_run

SETTINGS = ["--data", "digits", "--backbone", "resnet8_16", "--projection-size", "16"]
SETTINGS += ["--projection-hidden-size", "32", "--batch-size", "64", "--optimizer", "adamw"]
SETTINGS += ["--epochs", "36st", "--log-every", "2st", "--checkpoint-every", "3st", "--knn-every", "10st"]
SETTINGS += ["--logger", "none"]


Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts a run in a process group of its own, which ends with the test."""
    started: list[Program] = []

    def start_one(out: Path, *settings: str) -> Program:
        words = [sys.executable, "-m", "byol", "pretrain", *settings, "--out", str(out)]
        started.append(programs.start(words))
        return started[-1]

    yield start_one
    programs.abort(started)


def here(*words: str) -> None:
    """Run `byol pretrain` in this process: it takes seconds to start one."""
    assert main(["pretrain", *words]) == 0


def wait_for_step(out: Path, step: int, process: Program) -> None:
    deadline = time.monotonic() + 200
    run = RunDirectory(out)
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the run ended early: {process.communicate()}")
        if run.metrics_file.is_file() and f'"step": {step},' in run.metrics_file.read_text():
            return
        time.sleep(0.002)
    pytest.fail("the run never got there")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    here(*SETTINGS, "--out", str(out))
    return out


def test_killed_run_resumes_exactly(start: Start, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    process = start(out, *SETTINGS)
    wait_for_step(out, 8, process)  # saved at 6; step 7 and perhaps 8 are lost
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert load(RunDirectory(out).last_checkpoint)["step"] < 36
    here("--resume", str(out))
    assert_same_run(uninterrupted, out)


def test_sigterm_to_all_processes_saves_after_the_step_and_tells_how_to_go_on(
    start: Start, photographs: Path, tmp_path: Path
) -> None:
    """Schedulers and `timeout` signal the whole group: workers that decode must not die of it."""
    settings = ["--data", str(photographs), "--backbone", "resnet8_16", "--image-size", "32", "--batch-size"]
    settings += ["8", "--epochs", "120st", "--projection-hidden-size", "32", "--log-every", "2st"]
    settings += ["--knn-every", "0", "--checkpoint-every", "0", "--logger", "none"]
    out = tmp_path / "stopped"
    process = start(out, *settings, "--num-workers", "1")
    wait_for_step(out, 4, process)
    os.killpg(process.pid, signal.SIGTERM)
    ((_, errors),) = programs.said(process, seconds=200)
    assert process.returncode == 143, errors
    assert f"byol pretrain --resume {out}" in errors and "Traceback" not in errors
    assert errors.count("SIGTERM: stopping after this step, to save it") == 1
    assert 4 <= load(RunDirectory(out).last_checkpoint)["step"] < 120
    here("--resume", str(out), "--num-workers", "0")
    here(*settings, "--num-workers", "1", "--out", str(tmp_path / "whole"))
    assert_same_run(tmp_path / "whole", out)


def test_resuming_a_finished_run_changes_nothing(uninterrupted: Path) -> None:
    before = RunDirectory(uninterrupted).metrics_file.read_text()
    here("--resume", str(uninterrupted))
    assert RunDirectory(uninterrupted).metrics_file.read_text() == before


def test_a_run_of_a_gpu_goes_on_without_one(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        run = byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "epochs": "2st"})
    state = load(RunDirectory(run.path).last_checkpoint)
    assert {tensor.device.type for tensor in state["learner"].values()} == {"cpu"}
    assert byol.pretrain(resume=run.path).path == run.path


def test_data_that_have_changed_are_refused(tiny: dict[str, Any], photographs: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(photographs, pictures)
    settings = {**tiny, "image_size": 32, "batch_size": 8, "epochs": "2st", "num_workers": 0}
    run = byol.pretrain(f"folder:{pictures}", out=str(tmp_path / "run"), **settings)
    (pictures / "cats" / "01.png").rename(pictures / "cats" / "99.png")
    with pytest.raises(byol.UserError, match="the data have changed since the run was saved"):
        byol.pretrain(resume=run.path)


def test_other_data_or_backbone_are_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Those that a run has by default among them."""
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    run = byol.pretrain(images, out=str(tmp_path / "run"), **{**tiny, "batch_size": 8, "epochs": "1st"})
    for given in (
        {"data": "cifar10"},
        {"data": "digits"},
        {"backbone": "resnet50"},
        {"backbone": "resnet18"},
    ):
        with pytest.raises(byol.UserError, match=f"not --{next(iter(given))}"):
            byol.pretrain(resume=run.path, **given)


def test_data_of_the_run_may_be_named_again(
    tiny: dict[str, Any], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they are written: the run keeps the absolute path."""
    settings = {**tiny, "image_size": 32, "batch_size": 8, "epochs": "1st", "num_workers": 0}
    monkeypatch.chdir(photographs.parent)
    run = byol.pretrain(Path(photographs.name), out=str(tmp_path / "run"), **settings)
    assert RunDirectory(run.path).config()["data"] == f"folder:{photographs}"
    assert byol.pretrain(photographs.name, resume=run.path) == run


def test_objects_of_the_run_are_to_be_passed_again(tiny: dict[str, Any], tmp_path: Path) -> None:
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1))
    settings = {**tiny, "batch_size": 8, "epochs": "1st", "backbone": net}
    run = byol.pretrain(images, out=str(tmp_path / "run"), **settings)
    assert "Conv2d" not in repr(run)
    own = "the run's data were an object in Python, tensor: pass it"
    for ask in (byol.evaluate, partial(byol.embed, out=tmp_path / "v.npy")):
        with pytest.raises(byol.UserError, match=own):
            ask(run.path, net=net)
    with pytest.raises(byol.UserError, match=own):
        byol.pretrain(resume=run.path, backbone=net)
    with pytest.raises(byol.UserError, match="the backbone was a network of your own, <Sequential>: pass it"):
        byol.pretrain(images, resume=run.path)
    byol.pretrain(images, net, resume=run.path)


def test_failed_resume_leaves_the_run_alone(tiny: dict[str, Any], tmp_path: Path) -> None:
    """The checkpoint of one network, resumed with another: refused, and nothing is removed."""
    settings = {name: value for name, value in tiny.items() if name != "backbone"}
    nets = [
        torch.nn.Sequential(torch.nn.Conv2d(1, width, 3), torch.nn.AdaptiveAvgPool2d(1)) for width in (8, 9)
    ]
    with stopping_at(3):
        byol.pretrain("digits", nets[0], out=str(tmp_path / "run"), **settings)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(byol.UserError, match="the checkpoint does not fit the network"):
        byol.pretrain(backbone=nets[1], resume=tmp_path / "run")
    assert {file: file.stat().st_mtime_ns for file in files if file.name != "metrics.jsonl"} == {
        file: time for file, time in files.items() if file.name != "metrics.jsonl"
    }


def test_image_that_breaks_in_the_middle_can_be_mended(
    tiny: dict[str, Any], photographs: Path, tmp_path: Path
) -> None:
    """The run is saved at the step before; mending the file and resuming equals a run without a break."""
    pictures = tmp_path / "pictures"
    shutil.copytree(photographs, pictures)
    settings = {**tiny, "image_size": 32, "batch_size": 8, "epochs": "6st", "num_workers": 0}
    settings |= {"checkpoint_every": "6st", "knn_every": "0"}
    whole = byol.pretrain(f"folder:{pictures}", out=str(tmp_path / "whole"), **settings)
    original = FileImages.picture
    reads = []

    def breaking(self: FileImages, index: int) -> Any:
        reads.append(index)
        if len(reads) == 30:
            raise unreadable("cats/01.png", OSError("the disk hiccuped"))
        return original(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileImages, "picture", breaking)
        with pytest.raises(byol.UserError, match=r"cats/01\.png"):
            byol.pretrain(f"folder:{pictures}", out=str(tmp_path / "broken"), **settings)
    resumed = byol.pretrain(resume=tmp_path / "broken")
    assert_same_run(whole.path, resumed.path)


@pytest.mark.parametrize(("every", "saved"), [("100st", [4, 8, 12]), ("0", [12])])
def test_a_checkpoint_is_never_older_than_an_hour(
    every: str, saved: list[int], tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on a thousand seconds whenever it is read."""
    seconds, steps, write = count(0, 1000), [], callbacks.write_state

    def noted(file: Path, state: dict[str, Any]) -> None:
        steps.append(state["step"])
        write(file, state)

    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(callbacks, "write_state", noted)
    settings = {**tiny, "epochs": "12st", "checkpoint_every": every, "knn_every": "0"}
    byol.pretrain("digits", out=str(tmp_path / "run"), **settings)
    assert steps == saved


@pytest.mark.parametrize("settings", [{"normalization": "group"}, {"target_statistics": "average"}], ids=str)
def test_options_of_the_learner_resume_exactly(
    settings: dict[str, Any], tiny: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**tiny, **settings}
    whole = byol.pretrain("digits", out=str(tmp_path / "whole"), **settings)
    with stopping_at(3):
        byol.pretrain("digits", out=str(tmp_path / "part"), **settings)
    assert_same_run(whole.path, byol.pretrain(resume=tmp_path / "part").path)


def test_streamed_data_resume_exactly(tiny: dict[str, Any], photographs: Path, tmp_path: Path) -> None:
    settings = {**tiny, "image_size": 32, "batch_size": 8, "epochs": "6st", "num_workers": 1}
    whole = byol.pretrain(f"folder:{photographs}", out=str(tmp_path / "whole"), **settings)
    with stopping_at(3):
        byol.pretrain(f"folder:{photographs}", out=str(tmp_path / "part"), **settings)
    resumed = byol.pretrain(resume=tmp_path / "part")
    assert_same_run(whole.path, resumed.path)


@contextmanager
def stopping_at(step: int) -> Iterator[None]:
    """Let a stop signal arrive during this step, and expect the run to stop there."""
    original = StopOnSignal.__call__

    def stop(self: StopOnSignal, module: Any) -> None:
        self.received = signal.SIGTERM if module.step == step else 0
        original(self, module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopOnSignal, "__call__", stop)
        with pytest.raises(Interrupted):
            yield


def test_steps_that_are_repeated_stand_once_in_tensorboard(tiny: dict[str, Any], tmp_path: Path) -> None:
    """A run that was killed has written steps behind its checkpoint, and does them again."""
    out = tmp_path / "run"
    settings = {**tiny, "out": str(out), "log_every": "1st", "checkpoint_every": "3st", "knn_every": "0"}
    killed = Killed("in the middle of step 6")

    def die(self: Monitor, module: Any) -> None:
        if module.step == 6:
            raise killed
        original(self, module)

    original = Monitor.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, "__call__", die)
        with pytest.raises(Killed):
            byol.pretrain("digits", **settings)
    assert load(RunDirectory(out).last_checkpoint)["step"] == 3
    time.sleep(1.1)  # files of one second and process are read in the order of "9" and "10"
    byol.pretrain(resume=out)
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]


class Killed(BaseException):
    """Ends a run as a kill does: nothing is saved."""
