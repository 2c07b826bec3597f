"""Several processes on one machine: one run directory, one set of lines, the same images an epoch."""

from pathlib import Path
from typing import Any

import pytest

from byol.rundir import RunDirectory
from byol.training.checkpoint import load

WORDS = ["pretrain", "--backbone", "resnet8_16", "--projection-size", "16", "--projection-hidden-size", "32"]
WORDS += ["--batch-size", "64", "--epochs", "6st", "--optimizer", "adamw", "--log-every", "2st"]
WORDS += ["--checkpoint-every", "3st", "--devices", "2"]


@pytest.mark.slow
def test_two_processes_make_one_run_and_resume(byol_command: Any, tmp_path: Path) -> None:
    done = byol_command(*WORDS, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run directory: run") == 1
    run = RunDirectory(tmp_path / "run")
    assert [record["step"] for record in run.metrics() if "loss" in record] == [2, 4, 6]
    assert load(run.last_checkpoint)["step"] == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    resumed = byol_command("pretrain", "--resume", "run", "--devices", "1", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.slow
def test_batch_that_does_not_divide(byol_command: Any, tmp_path: Path) -> None:
    words = [word if word != "64" else "63" for word in WORDS]
    done = byol_command(*words, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "make it a multiple of 2" in done.stderr
    assert not (tmp_path / "run").exists()
