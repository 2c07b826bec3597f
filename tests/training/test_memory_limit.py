"""Which images stay on the training device; a run goes on as it began, also on one of another size."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import byol
from byol.config import PretrainConfig
from byol.rundir import RunDirectory
from byol.training import memory_limit
from byol.training.preparation import prepare_data
from byol.training.processes import Launch
from byol.training.resolution import resolve
from tests.training.test_pretrain import assert_same_run
from tests.training.test_resume import stopping_at

GIB = 2**30


def limit(choice: Any = "auto") -> int:
    return memory_limit.memory_limit(PretrainConfig(in_memory=choice))


def machine(
    monkeypatch: pytest.MonkeyPatch, gpus: list[int], memory: int = 10**4 * GIB, processes: int = 1
) -> None:
    """Be a machine with GPUs of so many bytes each, and with some memory."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda number: SimpleNamespace(total_memory=gpus[number])
    )
    monkeypatch.setattr(memory_limit, "machine_memory", lambda: memory)
    monkeypatch.setattr(memory_limit, "launch_of", lambda config: Launch("byol", processes))


@pytest.mark.parametrize(
    ("gpus", "memory", "processes", "expected"),
    [
        ([], 1000, 1, 2),
        ([80], 1000, 1, 20),
        ([80, 24], 1000, 2, 6),
        ([80], 32, 1, 8),
        ([80] * 8, 512, 8, 16),
        ([80] * 8, 32, 8, 2),
        ([4], 1000, 1, 1),
    ],
)
def test_the_limit_follows_from_the_memory(
    gpus: list[int], memory: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, [gpu * GIB for gpu in gpus], memory * GIB, processes)
    assert limit() == expected * GIB
    assert limit("on") > 10**6 * GIB and limit("off") == 2 * GIB


IMAGES = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_gpu_holds_what_a_cpu_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """STL-10's train and unlabeled images, 105,000 of 27,648 bytes, on an H100; without their bytes."""
    images = torch.zeros(1, 3, 96, 96, dtype=torch.uint8).expand(105_000, -1, -1, -1)
    config = PretrainConfig(holdout=0)
    streamed = prepare_data(images, config)
    machine(monkeypatch, [80 * GIB])
    held = prepare_data(images, config)
    assert streamed.images is None and held.images is not None
    assert held.images.data_ptr() == images.data_ptr()
    for data in (streamed, held):
        assert resolve(config, data).image_size == 96
    assert [resolve(config, data).in_memory for data in (streamed, held)] == ["off", "on"]


@pytest.mark.parametrize(("before", "limits"), [("on", (10**6, 0)), ("off", (0, 10**6))])
def test_a_run_goes_on_as_it_began_on_any_device(
    before: str,
    limits: tuple[int, int],
    tiny: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The two ways draw other views: the one that the run took is kept, also for its repetition."""
    settings = {**tiny, "batch_size": 8, "num_workers": 0, "preset": "small"}
    monkeypatch.setattr(memory_limit, "LIMIT_BYTES", limits[0])
    whole = byol.pretrain(IMAGES, out=str(tmp_path / "whole"), **settings).path
    with stopping_at(3):
        byol.pretrain(IMAGES, out=str(tmp_path / "part"), **settings)
    assert RunDirectory(whole).config()["in_memory"] == before
    monkeypatch.setattr(memory_limit, "LIMIT_BYTES", limits[1])
    assert_same_run(whole, byol.pretrain(IMAGES, resume=tmp_path / "part").path)
    repeated = byol.pretrain(IMAGES, out=str(tmp_path / "repeated"), in_memory=before, **settings).path
    other = byol.pretrain(IMAGES, out=str(tmp_path / "other"), **settings).path
    losses = [[record["loss"] for record in RunDirectory(run).metrics()] for run in (whole, repeated, other)]
    assert losses[0] == losses[1] != losses[2]


def test_images_that_cannot_be_held_are_refused() -> None:
    large = torch.zeros(8, 3, 16, 257, dtype=torch.uint8)
    with pytest.raises(byol.UserError, match="--in-memory on: the images of"):
        prepare_data(large, PretrainConfig(in_memory="on"))
    assert prepare_data(IMAGES, PretrainConfig(in_memory="off")).images is None
