"""Several processes on one machine: one run directory, the same images in every step, and one end for all.

The processes are `traced.py`: each tells what it wrote and which images it took, and can be held at a step.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import byol
from byol.data.batches import BatchPlan
from byol.rundir import RunDirectory
from byol.training.checkpoint import load
from tests.named_sets import write_stl10
from tests.programs import Program, finished, said, start
from tests.training.test_resume import stopping_at

TRACED = Path(__file__).with_name("traced.py")
BATCH, STEPS = 16, 9
IMAGES = 40 + 24 - 8  # STL-10's train and unlabeled images, without the hold-out
SETTINGS = {"data": "stl10", "image_size": 32, "backbone": "resnet8_16", "projection_size": 16}
SETTINGS |= {"projection_hidden_size": 32, "batch_size": BATCH, "epochs": f"{STEPS}st", "holdout": 8}
SETTINGS |= {"log_every": "1st", "checkpoint_every": "3st", "knn_every": "0", "optimizer": "adamw"}
WORDS = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    labels = [index % 10 + 1 for index in range(40)]
    write_stl10(folder, {"train": labels, "test": labels}, 24, list("abcdefghij"))
    return folder


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.stl10.check_integrity", lambda path, md5=None: True)


def wait_for(condition: Callable[[], bool], process: Program) -> None:
    """Wait until something has happened in a run that goes on meanwhile."""
    deadline = time.monotonic() + 200
    while not condition():
        if time.monotonic() > deadline:
            process.terminate()
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


class Witnessed:
    """A folder with a run, `run`, and one with what its processes did, `trace`."""

    def __init__(self, folder: Path, datasets: Path) -> None:
        self.cwd = folder / "cwd"
        self.trace = folder / "trace"
        self.datasets = datasets
        for made in (self.cwd, self.trace):
            made.mkdir()
        self.run = RunDirectory(self.cwd / "run")

    @property
    def started(self) -> list[str]:
        return [*WORDS, "--data-dir", str(self.datasets), "--out", "run"]

    def start(self, *words: str, hold: str = "", launcher: tuple[str, ...] = (), **variables: str) -> Program:
        """Start `byol pretrain` with a process to hold, in a process group of its own."""
        command = [sys.executable, *launcher, str(TRACED), "pretrain", *words]
        return start(command, self.cwd, TRACE=str(self.trace), HOLD=hold, **variables)

    def kill_held(self, process: Program) -> float:
        """Kill the held process with SIGKILL; return the seconds until no process of the run is left."""
        held = self.trace / "held"
        wait_for(lambda: held.is_file() and held.read_text() != "", process)
        began = time.monotonic()
        os.kill(int(held.read_text()), signal.SIGKILL)
        held.unlink()
        ((self.output, self.errors),) = said(process, seconds=120)  # until all have closed the pipe
        return time.monotonic() - began

    @property
    def told(self) -> list[str]:
        """The lines about processes that have ended, and about errors that nobody caught."""
        return [line for line in self.errors.splitlines() if "rank" in line or "Traceback" in line]

    def images_by_step(self) -> dict[int, list[set[int]]]:
        """Return the images of each step: a set for every number of processes that did it."""
        taken: dict[tuple[int, int], set[int]] = {}
        for file in self.trace.glob("order-*"):
            for line in file.read_text().splitlines():
                step, processes, images = json.loads(line)
                taken.setdefault((step, processes), set()).update(images)
        return {step: [taken[key] for key in taken if key[0] == step] for step, _ in taken}

    def written_by(self, rank: int) -> list[str]:
        """Return the paths in the working directory that a process touched."""
        lines = (self.trace / f"writes-{rank}").read_text().splitlines()
        return [line for line in lines if Path(line).is_relative_to(self.cwd)]


def told_of(end: str) -> str:
    """Return the line about a process and its end."""
    return f"byol: error: the process of {end}, and with it the run; continue: byol pretrain --resume run"


@pytest.fixture
def witnessed(tmp_path: Path, datasets: Path) -> Witnessed:
    return Witnessed(tmp_path, datasets)


def assert_each_step_has_its_images(witnessed: Witnessed, steps: range) -> None:
    """Compare with the order that one process follows without a break."""
    plan, taken = BatchPlan(IMAGES, BATCH), witnessed.images_by_step()
    for step in steps:
        expected = set(plan.indices(step).tolist())
        # A process that was killed took its share of the last step, or did not.
        assert expected in taken[step] and all(images <= expected for images in taken[step]), step


def finish_alone(witnessed: Witnessed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume the run in this process, on its own."""
    original, order = BatchPlan.indices, (witnessed.trace / "order-alone").open("a")

    def indices(self: BatchPlan, position: int) -> Any:
        images = original(self, position)
        order.write(json.dumps([position, self.processes, images.tolist()]) + "\n")
        return images

    with order, monkeypatch.context() as patch:
        patch.setattr(BatchPlan, "indices", indices)
        byol.pretrain(resume=witnessed.run.path, devices=1)


def test_second_of_two_dies_and_one_goes_on(witnessed: Witnessed, monkeypatch: pytest.MonkeyPatch) -> None:
    process = witnessed.start(*witnessed.started, "--devices", "2", hold="1:7")
    assert witnessed.kill_held(process) < 60
    assert process.returncode == 2
    assert witnessed.told == [told_of("rank 1 was killed (SIGKILL)")]
    assert load(witnessed.run.last_checkpoint)["step"] == 6
    # Only the first process writes.
    assert witnessed.written_by(1) == []
    names = {Path(line).name for line in witnessed.written_by(0)}
    assert {"run", "metrics.jsonl", "config.json", "views.png"} <= names
    assert [path.name for path in witnessed.cwd.iterdir()] == ["run"]
    finish_alone(witnessed, monkeypatch)
    assert load(witnessed.run.last_checkpoint)["step"] == STEPS
    assert [record["step"] for record in witnessed.run.metrics()] == list(range(1, STEPS + 1))
    assert_each_step_has_its_images(witnessed, range(STEPS))


def test_second_of_two_dies_and_its_worker_keeps_nothing_open(witnessed: Witnessed) -> None:
    words = (*witnessed.started, "--in-memory", "off", "--num-workers", "1", "--devices", "2")
    process = witnessed.start(*words, hold="1:7")
    assert witnessed.kill_held(process) < 60
    assert process.returncode == 2
    assert witnessed.told == [told_of("rank 1 was killed (SIGKILL)")]


def test_first_of_two_dies_after_one_began(witnessed: Witnessed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(witnessed.cwd)
    with stopping_at(3):
        byol.pretrain(**SETTINGS, data_dir=str(witnessed.datasets), out="run")
    process = witnessed.start("--resume", "run", "--devices", "2", hold="0:7")
    assert witnessed.kill_held(process) < 60
    assert process.returncode == -signal.SIGKILL
    assert witnessed.told == [told_of("rank 0 ended")]
    assert load(witnessed.run.last_checkpoint)["step"] == 6
    finish_alone(witnessed, monkeypatch)
    assert [record["step"] for record in witnessed.run.metrics()] == list(range(1, STEPS + 1))
    assert_each_step_has_its_images(witnessed, range(3, STEPS))


def test_worker_of_torchrun_dies(witnessed: Witnessed) -> None:
    """Torchrun stops the other one at once, while that still ends the run in order."""
    words = (*witnessed.started, "--devices", "2", "--nodes", "1")
    process = witnessed.start(*words, hold="1:4", launcher=TORCHRUN, SLOW="1")
    assert witnessed.kill_held(process) < 60
    assert process.returncode != 0
    told = [line for line in witnessed.errors.splitlines() if line.startswith("byol:")]
    assert told == [told_of("rank 1 ended")]
    assert load(witnessed.run.last_checkpoint)["step"] == 3


def test_stop_signal_to_the_first_of_two(witnessed: Witnessed) -> None:
    """In a container whose launcher left the number of a process that is alone."""
    words = ["2000st" if word == f"{STEPS}st" else word for word in witnessed.started]
    process = witnessed.start(*words, "--devices", "2", RANK="0", WORLD_SIZE="1")
    wait_for(lambda: any(record["step"] >= 8 for record in witnessed.run.metrics()), process)
    process.terminate()
    ((output, errors),) = said(process, seconds=100)
    assert process.returncode == 143, errors
    assert errors.count("byol pretrain --resume run") == 1 and output == ""
    step = load(witnessed.run.last_checkpoint)["step"]
    assert 8 <= step < 2000


def test_what_follows_a_run_is_for_the_process_that_called_it(tmp_path: Path) -> None:
    """Started processes run the caller's script, too: they end with the run, not with the script."""
    script = tmp_path / "script.py"
    script.write_text(
        "import byol\n"
        "settings = dict(backbone='resnet8_16', projection_size=16, projection_hidden_size=32,\n"
        "    batch_size=64, epochs='2st', optimizer='adamw', knn_every='0')\n"
        "run = byol.pretrain('digits', devices=2, out='run', **settings)\n"
        "byol.evaluate(run.path, protocol='knn')\n"
        "byol.pretrain('digits', devices=1, out='next', **settings)\n"
    )
    done = finished([sys.executable, script], 200, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(RunDirectory(tmp_path / "run").results()) == 3  # top1, mean_per_class and top5, once
    assert RunDirectory(tmp_path / "next").last_checkpoint.is_file()
