"""Who starts a run's processes, and how many: what torchrun's and SLURM's variables mean."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import byol
from byol.config import PretrainConfig
from byol.errors import UserError
from byol.settings import settings_from
from byol.training.processes import Launch, command_again, launch_of, started_outside
from byol.training.run import pretrain
from byol.training.session import Session

TORCHRUN = {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1"}
# As srun sets them for the sixth of eight tasks on two machines.
SRUN = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4"}
SRUN |= {"SLURM_NNODES": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
# A batch script has the variables of a first task, but is no step.
BATCH = {**SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
del BATCH["SLURM_STEP_ID"]
# A shell that was asked for with `srun --pty bash`.
SHELL = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    def set_variables(variables: dict[str, str]) -> None:
        for name in [*TORCHRUN, *SRUN]:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (TORCHRUN, Launch("torchrun", 4, 2)),
        ({**SRUN, **TORCHRUN}, Launch("torchrun", 4, 2)),
        (SRUN, Launch("srun", 4, 2)),
        (BATCH, None),
        (SHELL, None),
    ],
)
def test_who_started_the_processes(variables: dict[str, str], expected: Launch | None) -> None:
    assert started_outside(variables) == expected


@pytest.mark.parametrize(
    ("variables", "settings", "message"),
    [
        ({}, {"nodes": 2}, "--nodes 2: nothing has started processes on several machines"),
        (BATCH, {"nodes": 2}, "in a SLURM job with srun"),
        (TORCHRUN, {"devices": 2}, "--devices 2, but torchrun started 4 processes on each of 2 machines"),
        (TORCHRUN, {"nodes": 3}, "--nodes 3, but torchrun started 4 processes on each of 2 machines"),
        (SRUN, {"devices": 8}, "--devices 8, but srun started 4 processes on each of 2 machines"),
        ({**TORCHRUN, "WORLD_SIZE": "7"}, {}, "as many on each machine"),
        ({**SRUN, "SLURM_NTASKS": "6"}, {}, "as many on each machine"),
        ({**SRUN, "SLURM_NTASKS_PER_NODE": ""}, {}, "--ntasks-per-node, not --ntasks"),
        (TORCHRUN, {}, "several processes need the same run directory: give --out"),
        (SRUN, {}, "several processes need the same run directory: give --out"),
    ],
)
def test_contradictions_are_told_before_the_data_are_read(
    outside: Callable[[dict[str, str]], None],
    variables: dict[str, str],
    settings: dict[str, Any],
    message: str,
) -> None:
    outside({name: value for name, value in variables.items() if value})
    with pytest.raises(UserError, match=message):
        pretrain("folder:/there/is/no/such/folder", **settings)


def test_flags_that_repeat_what_torchrun_did_are_fine(outside: Callable[[dict[str, str]], None]) -> None:
    outside(TORCHRUN)
    config = settings_from(PretrainConfig, {"devices": "4", "nodes": "2"})
    assert launch_of(config) == launch_of(PretrainConfig()) == Launch("torchrun", 4, 2)


def test_more_processes_than_gpus(
    outside: Callable[[dict[str, str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    outside({})
    assert launch_of(PretrainConfig()).devices == 2
    with pytest.raises(UserError, match=r"3 processes on a machine, but this one shows 2 GPUs$"):
        launch_of(PretrainConfig(devices="3"))
    outside(SRUN)
    with pytest.raises(UserError, match=r"4 processes .* 2 GPUs\. Ask SLURM for --gpus-per-node"):
        launch_of(PretrainConfig())


def test_a_batch_that_does_not_divide_starts_nothing(tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make it a multiple of 2"):
        byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "batch_size": 63, "devices": 2})
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_has_the_processes_that_are_started_now(
    outside: Callable[[dict[str, str]], None],
    tiny: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Launch] = []
    run = byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "epochs": "1st", "devices": 1})
    monkeypatch.setattr(Session, "train", lambda self: seen.append(launch_of(self.config)))
    for variables in (TORCHRUN, SRUN, {}):
        outside(variables)
        byol.pretrain(resume=run.path)
    assert seen == [Launch("torchrun", 4, 2), Launch("srun", 4, 2), Launch("byol", 1, 1)]
    outside(TORCHRUN)
    with pytest.raises(UserError, match="--devices 2, but torchrun started 4"):
        byol.pretrain(resume=run.path, devices=2)


def test_a_program_has_several_processes_once(tiny: dict[str, Any], tmp_path: Path) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(UserError, match="can start processes for one run only"):
            byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "devices": 2})
    finally:
        dist.destroy_process_group()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["notebook", "prompt"])
def test_a_notebook_cannot_be_started_again(
    kind: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its program is a file: the kernel, of which a second one would take the ports of the first."""
    if kind == "notebook":
        monkeypatch.setattr(sys, "argv", ["/lib/ipykernel_launcher.py", "-f", "kernel.json"])
    else:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(UserError, match="give devices=1"):
        byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "devices": 2})
    assert not (tmp_path / "run").exists()
    assert launch_of(PretrainConfig(devices="1")) == Launch("byol", 1)


def test_a_program_that_is_no_file_cannot_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["-c", "word"])
    with pytest.raises(UserError, match="it must be a file"):
        command_again()
    monkeypatch.setattr(sys, "argv", [os.path.abspath(__file__), "word"])  # noqa: PTH100 - as Python sets it
    assert command_again() == [sys.executable, os.path.abspath(__file__), "word"]  # noqa: PTH100
