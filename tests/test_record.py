"""`benchmarks/cifar10.py` at reduced size on a CPU, in segments and whole, on images like its own."""

import importlib
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from byol.evaluation import measure
from byol.rundir import RunDirectory
from byol.training.module import Pretraining
from tests.programs import finished
from tests.training.test_pretrain import assert_same_run

PROJECT = Path(__file__).parents[1]
CIFAR10 = PROJECT / ".." / "shared" / "data" / "cifar10"
SMALL = ["--backbone", "resnet8_16", "--stem", "strided", "--projection-size", "16"]
SMALL += ["--projection-hidden-size", "32", "--batch-size", "20", "--precision", "fp32", "--log-every", "2st"]


def picture(label: int, generator: np.random.Generator) -> bytes:
    """A 32-pixel picture whose class is the direction of its stripes."""
    across, down = np.meshgrid(np.arange(32), np.arange(32))
    wave = np.sin((across if label else down) / 2 + generator.uniform(0, 6))[..., None]
    values = 128 + 80 * wave * generator.uniform(0.5, 1, 3) + generator.normal(0, 10, (32, 32, 3))
    return png(values.clip(0, 255).astype(np.uint8))


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, split: str, images: list[dict[str, Any]], classes: list[str]) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    split_set = datasets.Dataset.from_list(images, features=features)
    split_set.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("data") / "stripes", np.random.default_rng(0)
    for split, count in (("train", 120), ("test", 40)):
        labels = [index % 2 for index in range(count)]
        images = [{"image": {"bytes": picture(label, generator)}, "label": label} for label in labels]
        write(folder, split, images, ["lying", "standing"])
    return folder


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the real images."""
    if not CIFAR10.is_dir():
        pytest.skip("no CIFAR-10 nearby")
    from byol.data.source import open_source

    folder = tmp_path_factory.mktemp("data") / "cifar10"
    source = open_source(f"hf:{CIFAR10}", data_dir=str(folder.parent / "datasets"))
    for split, images, count in (("train", source.train, 300), ("test", source.test, 100)):
        assert images is not None and images.labels is not None and images.class_names is not None
        rows = [
            {
                "image": {"bytes": png(images[index].permute(1, 2, 0).numpy())},
                "label": int(images.labels[index]),
            }
            for index in range(count)
        ]
        write(folder, split, rows, list(images.class_names))
    return folder


def words(data: Path, out: Path, *more: str) -> list[str]:
    places = ["--data", f"hf:{data}", "--out", str(out), "--record", str(out / "record.json")]
    places += ["--data-dir", str(data.parent / "datasets")]  # not into the project
    return ["benchmarks/cifar10.py", "--budget", "1min", *places, *SMALL, *more]


def start(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return finished(command, 200, PROJECT)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """Run the program in this process, which has imported everything."""
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))

    def run(arguments: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", arguments)
        program = runpy.run_path(str(PROJECT / arguments[0]))
        return int(program["main"]())

    return run


@pytest.fixture
def quickly_classified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit linear classifiers for three epochs: how well they do is not looked at."""
    whole = measure.linear
    monkeypatch.setattr(measure, "linear", lambda problem, **settings: whole(problem, epochs=3, **settings))


def results(out: Path, seed: int) -> list[tuple[str, str, float]]:
    records = json.loads((out / f"seed-{seed}" / "results.json").read_text())
    return [(record["protocol"], record["metric"], record["value"]) for record in records]


def seconds_trained(out: Path, seed: int) -> list[float]:
    lines = (out / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()
    return [record["seconds"] for record in map(json.loads, lines) if "seconds" in record]


@pytest.mark.slow
def test_in_segments_and_whole(
    stripes: Path,
    here: Callable[[list[str]], int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Segments end at steps that nobody chose; the numbers are those of one go, in another process."""
    original = Pretraining.optimizer_step

    def slow(*arguments: Any) -> None:
        time.sleep(0.03)  # most of a segment is training
        original(*arguments)

    monkeypatch.setattr(Pretraining, "optimizer_step", slow)
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    more = ["--epochs", "24st", "--seeds", "0,1"]
    statuses: list[int] = []
    stops: list[str] = []
    while not statuses or statuses[-1]:
        minutes = 0.01 * (1 + len(statuses))  # more each time, however slow the machine
        statuses.append(here(words(stripes, parts, *more, "--stop-after", str(minutes))))
        stops.append(capsys.readouterr().err.splitlines()[-1])
        assert statuses[-1] in (0, 75)
    assert any(re.search(r"seed-\d at step [1-9]\d*; the same command goes on there", line) for line in stops)
    done = start(words(stripes, whole, *more))
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        assert results(parts, seed) == results(whole, seed)
        assert_same_run(parts / f"seed-{seed}", whole / f"seed-{seed}")
        trained = seconds_trained(parts, seed)
        assert trained == sorted(trained) and len(trained) == 12
    check(parts, whole)
    before = json.loads((parts / "record.json").read_text())
    started = parts / "seed-0" / "env.json"
    started.write_text(json.dumps({**json.loads(started.read_text()), "gpus": ["another machine's"]}))
    assert here(words(stripes, parts, *more)) == 0 and results(parts, 0) == results(whole, 0)
    assert json.loads((parts / "record.json").read_text()) == {**before, "gpus": ["another machine's"]}
    assert here(words(stripes, parts, *more, "--tau", "0.5")) == 2
    tau = RunDirectory(parts / "seed-0").config()["tau"]
    assert f"was started with --tau {tau}, not 0.5" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_classified")
def test_as_many_epochs_as_fit_the_budget(
    stripes: Path, here: Callable[[list[str]], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured once, for all seeds and segments; the run is the one that a given length makes."""
    goals, calibration = map(importlib.import_module, ("goals", "calibration"))
    monkeypatch.setitem(goals.BUDGETS, "1min", goals.Budget(1.0, 0.0))
    monkeypatch.setattr(calibration, "STEPS", 10)
    measured: list[dict[str, float]] = []
    measure, original = calibration.measured_pace, Pretraining.optimizer_step

    def noting(settings: dict[str, Any]) -> dict[str, float]:
        measured.append(measure(settings))
        return {**measured[-1], "seconds_per_epoch": 0.2}  # on this machine it may be anything

    monkeypatch.setattr(calibration, "measured_pace", noting)

    def stopping(module: Pretraining, *arguments: Any) -> None:
        original(module, *arguments)
        if measured and module.step == 3 and not statuses:  # as --stop-after does, at a chosen step
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Pretraining, "optimizer_step", stopping)
    fitted, given = tmp_path / "fitted", tmp_path / "given"
    statuses: list[int] = []
    for _ in range(2):
        statuses.append(here(words(stripes, fitted, "--seeds", "0,1")))
    assert statuses == [128 + signal.SIGTERM, 0]
    record = json.loads((fitted / "record.json").read_text())
    found = record["calibration"]
    assert len(measured) == 1, "the stopped segment goes on with the stored number"
    images = 20 * 5  # an epoch's: five whole batches, of 108 without the hold-out
    per_epoch = measured[0]["images_per_second"] * measured[0]["seconds_per_epoch"]
    assert per_epoch == pytest.approx(images, rel=1e-3)
    assert (found["epochs"], found["seconds_per_epoch"]) == (4, 0.2)
    assert found["images_per_second"] == measured[0]["images_per_second"]
    assert record["settings"]["epochs"] == "4" and record["steps"] == [5 * 4] * 2
    assert list(map(len, record["segments"])) == [2, 1]
    assert here(words(stripes, given, "--seeds", "0", "--epochs", "4")) == 0
    assert json.loads((given / "record.json").read_text())["calibration"] is None and len(measured) == 1
    assert results(fitted, 0) == results(given, 0)
    assert_same_run(fitted / "seed-0", given / "seed-0")


@pytest.mark.slow
def test_a_budget_too_short_for_an_epoch_is_refused(
    stripes: Path,
    here: Callable[[list[str]], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    goals, calibration = map(importlib.import_module, ("goals", "calibration"))
    monkeypatch.setitem(goals.BUDGETS, "1min", goals.Budget(1e-4, 0.0))
    monkeypatch.setattr(calibration, "STEPS", 10)
    assert here(words(stripes, tmp_path / "out")) == 2
    assert "of the budget's 0 s: give a length with --epochs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def check(parts: Path, whole: Path) -> None:
    """Compare two records, and one with the results that it is made of."""
    record, other = (json.loads((out / "record.json").read_text()) for out in (parts, whole))
    assert record["rows"] == other["rows"] and record["steps"] == [24, 24]
    assert [row["protocol"] for row in record["rows"]] == ["linear", "knn", "online"]
    for row in record["rows"]:
        values = [
            value
            for seed in (0, 1)
            for protocol, metric, value in results(parts, seed)
            if (protocol, metric) == (row["protocol"], "top1")
        ]
        assert row["values"] == values and row["split"] == "test"
        spread = {"mean": np.mean(values), "std": np.std(values, ddof=1)}
        assert {name: row[name] for name in spread} == pytest.approx(spread)
    assert sum(map(len, record["segments"])) > 2 and list(map(len, other["segments"])) == [1, 1]
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["seeds"] == [0, 1] and record["data"] == "stripes"
    assert {"gpus", "processor", "cores", "date"} <= record.keys()
    for each in (record, other):
        for training, program in zip(each["training_seconds"], each["program_seconds"], strict=True):
            assert 0 < training < program
        assert each["goals"] == [
            {
                "goal": "training seconds",
                "at_most": 60.0,
                "value": pytest.approx(max(each["training_seconds"]), abs=0.01),
                "reached": max(each["training_seconds"]) <= 60,
            }
        ], "accuracy has goals for CIFAR-10 only"
    assert str(parts) not in (parts / "record.json").read_text(), "no path of this machine"


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_classified")
def test_a_hundred_classes_and_a_test_split_that_is_read_once(
    here: Callable[[list[str]], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the columns of CIFAR-100 on the Hub. Every seed is scored on the test images, once."""
    from byol.data.hf import EncodedImages

    original, read = EncodedImages.__getitem__, Counter[str]()

    def counted(self: EncodedImages, index: int) -> torch.Tensor:
        read[self.keys[index]] += 1
        return original(self, index)

    folder = tmp_path / "cifar100"
    write_like_cifar100(folder)
    monkeypatch.setattr(EncodedImages, "__getitem__", counted)
    more = ["--seeds", "0,1", "--epochs", "4st", "--knn-every", "0"]
    assert here(words(folder, tmp_path / "out", *more)) == 0
    tested = [read[f"test/{number}"] for number in range(100)]
    assert tested == [4, *[2] * 99], "once a seed; the first one also for its size"
    record = json.loads((tmp_path / "out/record.json").read_text())
    assert [row["protocol"] for row in record["rows"]] == ["linear", "knn", "online"]
    records = json.loads((tmp_path / "out/seed-0/results.json").read_text())
    assert {each["metric"]: each["value"] for each in records if each["protocol"] == "linear"}["top5"] > 0


def write_like_cifar100(folder: Path) -> None:
    """Write 100 classes in 20 groups: three train images and a test image of each."""
    import datasets

    names = {"fine_label": [f"class {number}" for number in range(100)]}
    names["coarse_label"] = [f"group {number}" for number in range(20)]
    classes = {column: datasets.ClassLabel(names=list(found)) for column, found in names.items()}
    features, generator = datasets.Features({"img": datasets.Image(), **classes}), np.random.default_rng(0)
    folder.mkdir()
    for split, count in (("train", 300), ("test", 100)):
        pixels = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        rows = [
            {"img": {"bytes": png(image)}, "fine_label": number % 100, "coarse_label": number % 20}
            for number, image in enumerate(pixels)
        ]
        split_set = datasets.Dataset.from_list(rows, features=features)
        split_set.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_classified")
def test_real_images(cifar10: Path, here: Callable[[list[str]], int], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert here(words(cifar10, out, "--epochs", "10st")) == 0
    record = json.loads((out / "record.json").read_text())
    assert record["data"] == "cifar10" and all(0 < row["mean"] < 1 for row in record["rows"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epoch", "3"], "unknown flag --epoch. Did you mean '--epochs'?"),
        (["--online-probe"], "--online-probe is for this program to set"),
    ],
)
def test_mistakes_cost_one_line(more: list[str], message: str, tmp_path: Path) -> None:
    done = start(words(tmp_path, tmp_path / "out", *more))
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()
