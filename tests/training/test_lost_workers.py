"""A worker that is killed, as the system does where memory runs out: one line says so."""

import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.utils.data import get_worker_info

import byol
from byol.cli import main
from byol.data.decode import EncodedPicture
from byol.rundir import RunDirectory
from byol.training.errors import LostWorkerError

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
    assert line.startswith("byol: error: a process that decodes images was killed")
