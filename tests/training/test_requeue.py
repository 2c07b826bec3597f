"""What SLURM is asked for, with a `scontrol` of our own on the PATH."""

import os
from pathlib import Path

import pytest

from byol.training.requeue import requeue

JOB = {"SLURM_JOB_ID": "1234567", "SLURM_JOB_NAME": "byol"}
ARRAY = {**JOB, "SLURM_ARRAY_JOB_ID": "1234560", "SLURM_ARRAY_TASK_ID": "7"}


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `scontrol` that keeps what it was asked for."""
    command = tmp_path / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ARRAY:
        monkeypatch.delenv(name, raising=False)
    return command


def asked(scontrol: Path) -> str:
    file = scontrol.with_name("asked")
    return file.read_text() if file.exists() else ""


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_batch_job_is_requeued(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, JOB)
    assert requeue() == "SLURM will start job 1234567 again"
    assert asked(scontrol) == "requeue 1234567\n"


def test_of_an_array_only_this_task(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, ARRAY)
    requeue()
    assert asked(scontrol) == "requeue 1234560_7\n"


@pytest.mark.parametrize("variables", [{}, {**JOB, "SLURM_JOB_NAME": "interactive"}])
def test_nothing_is_asked_outside_a_batch_job(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    set_variables(monkeypatch, variables)
    assert requeue() is None and asked(scontrol) == ""


def test_a_failure_is_told_in_one_line(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, JOB)
    scontrol.write_text("#!/bin/sh\necho 'Invalid job id\nspecified' >&2\nexit 1\n")
    assert requeue() == "'scontrol requeue 1234567' failed (Invalid job id specified)"
    monkeypatch.setenv("PATH", str(scontrol.parent / "empty"))
    told = requeue()
    assert told is not None and told.startswith("'scontrol requeue 1234567' failed (") and "\n" not in told
