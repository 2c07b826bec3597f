"""Several processes on one machine: one run directory, one set of lines, the same images an epoch."""

import subprocess
import sys
import time
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
def test_stop_signal_to_two_processes_saves_and_resumes(byol_command: Any, tmp_path: Path) -> None:
    words = [word if word != "6st" else "2000st" for word in WORDS]
    command = [sys.executable, "-m", "byol", *words, "--out", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    run = RunDirectory(tmp_path / "run")
    deadline = time.monotonic() + 120
    while '"step": 8,' not in (run.metrics_file.read_text() if run.metrics_file.is_file() else ""):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert errors.count("byol pretrain --resume run") == 1
    step = load(run.last_checkpoint)["step"]
    assert step >= 8 and step % 5 == 0  # the processes ask each other every five steps


@pytest.mark.slow
def test_batch_that_does_not_divide(byol_command: Any, tmp_path: Path) -> None:
    words = [word if word != "64" else "63" for word in WORDS]
    done = byol_command(*words, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "make it a multiple of 2" in done.stderr
    assert not (tmp_path / "run").exists()
