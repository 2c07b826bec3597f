"""A worker that is killed, as the system does where memory runs out: one line says so."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

import byol
from byol.cli import main
from byol.data.decode import EncodedPicture
from byol.errors import UserError
from byol.rundir import RunDirectory
from byol.training.errors import LostWorkerError
from byol.training.loggers import Loggers

SETTINGS: dict[str, Any] = {"backbone": "resnet8_16", "image_size": 32, "projection_hidden_size": 32}
SETTINGS |= {"batch_size": 4, "num_workers": 1, "logger": "none", "knn_every": "0"}


@pytest.fixture
def kill_worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have each worker killed instead of decoding its n-th image."""
    original = EncodedPicture.pixels

    def kill(number: int) -> None:
        numbers = count(1)

        def pixels(self: EncodedPicture, reduction: int = 1) -> Tensor:
            if get_worker_info() is not None and next(numbers) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, reduction)

        monkeypatch.setattr(EncodedPicture, "pixels", pixels)

    return kill


@pytest.mark.parametrize(("checkpoint_every", "hint"), [("1st", "--resume"), ("0", "nothing was saved")])
def test_a_run_says_how_to_go_on(
    checkpoint_every: str, hint: str, photographs: Path, tmp_path: Path, kill_worker: Callable[[int], None]
) -> None:
    out = str(tmp_path / "run")
    kill_worker(49)
    with pytest.raises(LostWorkerError, match=f"--num-workers take less; .*{hint}"):
        byol.pretrain(photographs, out=out, epochs="16st", checkpoint_every=checkpoint_every, **SETTINGS)
    assert RunDirectory(out).last_checkpoint.is_file() == (checkpoint_every == "1st")


def test_an_evaluation_is_one_line(
    photographs: Path, tmp_path: Path, kill_worker: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    byol.pretrain(photographs, out=out, epochs="1st", **SETTINGS)
    kill_worker(1)
    capsys.readouterr()
    assert main(["evaluate", out, "--protocol", "knn", "--num-workers", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("byol: error: a process that decodes images has ended: DataLoader worker (pid")


def test_a_run_tells_of_a_worker_whose_connection_breaks_first(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has handed over is fetched from it, and the signal of its end comes a moment later."""

    def breaks(iterator: Any) -> None:
        for process in multiprocessing.active_children():
            threading.Timer(0.3, process.kill).start()
        raise ConnectionResetError

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._get_data", breaks)
    out = tmp_path / "run"
    with pytest.raises(LostWorkerError, match="has ended: DataLoader worker"):
        byol.pretrain(photographs, out=out, epochs="16st", **SETTINGS)
    assert not out.exists()


def test_a_worker_that_ends_while_the_run_is_saved(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What PyTorch's writer raises is told as a disk that is full."""

    def save(*_: Any) -> None:
        for process in multiprocessing.active_children():
            process.kill()
        time.sleep(5)

    monkeypatch.setattr(torch, "save", save)
    out = tmp_path / "run"
    with pytest.raises(LostWorkerError, match="has ended: DataLoader worker"):
        byol.pretrain(photographs, out=str(out), epochs="16st", checkpoint_every="1st", **SETTINGS)


def test_a_worker_that_ends_meanwhile_changes_nothing_at_the_end(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(iterator: Any) -> None:
        raise UserError("no more")

    def wait(self: Loggers, status: str) -> None:
        for process in multiprocessing.active_children():
            process.kill()
        time.sleep(0.5)

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._get_data", breaks)
    monkeypatch.setattr(Loggers, "finish", wait)
    out = tmp_path / "run"
    with pytest.raises(UserError, match="no more"):
        byol.pretrain(photographs, out=out, epochs="16st", **SETTINGS)
    assert not out.exists()
