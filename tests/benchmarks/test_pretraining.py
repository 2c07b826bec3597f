"""Benchmarks that take long can be stopped anywhere, and go on."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byol.errors import UserError
from byol.rundir import RunDirectory

SETTINGS = {
    "data": "digits",
    "backbone": "resnet8_16",
    "projection_hidden_size": "16",
    "batch_size": "64",
    "epochs": "2st",
    "knn_every": "0",
    "logger": "none",
}


def write_images(folder: Path) -> Path:
    """Write class folders of noise, 16 images of each of ten classes to train on and 4 to test on."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 4)):
        for name in range(10):
            (folder / split / str(name)).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / str(name) / f"{index}.png")
    return folder


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(
    script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    runs, run = script("pretraining"), RunDirectory(tmp_path / "run")
    runs.pretrained(run, SETTINGS)
    losses = [record["loss"] for record in run.metrics()]
    run.last_checkpoint.unlink()  # what is there before it was written
    runs.pretrained(run, SETTINGS)
    assert run.last_checkpoint.is_file()
    assert [record["loss"] for record in run.metrics()] == losses


def test_a_run_of_other_settings_is_refused(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    runs, run = script("pretraining"), RunDirectory(tmp_path / "run")
    runs.pretrained(run, SETTINGS)
    runs.check_settings(run, SETTINGS)
    runs.check_settings(RunDirectory(tmp_path / "none"), SETTINGS)
    with pytest.raises(UserError, match="was started with --epochs 2st, not 3st"):
        runs.check_settings(run, {**SETTINGS, "epochs": "3st"})
    run.write_config({name: value for name, value in run.config().items() if name != "view_size"})
    runs.check_settings(run, SETTINGS)
    with pytest.raises(UserError, match="was started with --view-size None, not 6"):
        runs.check_settings(run, {**SETTINGS, "view_size": 6})


def test_time_is_added_up_over_segments(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    runs, run = script("pretraining"), RunDirectory(tmp_path / "run")
    runs.pretrained(run, SETTINGS)
    with pytest.raises(KeyboardInterrupt), runs.timed(run):
        raise KeyboardInterrupt
    with runs.timed(run, began=0.0):
        pass
    first, second = runs.segments(run)
    assert 0 <= first["seconds"] < 10 < second["seconds"]


@pytest.mark.slow
def test_few_labels(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = f"folder:{write_images(tmp_path / 'images')}"
    monkeypatch.setattr(sys, "argv", ["benchmark", "--quick", "--data", data, "--run", str(tmp_path / "run")])
    module = script("few_labels")
    module.EPOCHS = {"5": "1", "all": "1"}
    module.main()
    rows = measured_rows(module, tmp_path / "run")
    found = {(row["protocol"], row["features"]) for row in rows if row["labels"] == "all"}
    assert found == {
        ("logistic", "byol"),
        ("logistic", "random-init"),
        ("logistic", "pixels"),
        ("finetune", "byol"),
        ("finetune", "random-init"),
    }
    counts = {(row["labels"], row["protocol"]): len(row["values"]) for row in rows}
    assert counts == {(5, "logistic"): 3, (5, "finetune"): 3, ("all", "logistic"): 1, ("all", "finetune"): 1}
    results = (tmp_path / "run/results.json").read_text()
    module.main()  # measures nothing again
    assert (tmp_path / "run/results.json").read_text() == results


def measured_rows(module: ModuleType, run: Path) -> list[dict[str, Any]]:
    parts = [json.loads(file.read_text()) for file in sorted((run / "few_labels").iterdir())]
    assert all(part["minutes"] >= 0 for part in parts)
    results = [result for part in parts for result in part["results"]]
    return list(module.means(results, module.compared, module.chosen))
