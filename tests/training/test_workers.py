"""The machine's cores are shared by the processes that train there."""

import os

import pytest

from byol.config import PretrainConfig
from byol.training.preparation import worker_count


@pytest.mark.parametrize(
    ("cores", "devices", "expected"),
    [(2, "1", 1), (1, "1", 1), (16, "1", 15), (96, "1", 16), (16, "8", 1), (96, "8", 11), (4, "8", 1)],
)
def test_workers_by_default(cores: int, devices: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert worker_count(PretrainConfig(devices=devices)) == expected
    assert worker_count(PretrainConfig(devices=devices, num_workers=3)) == 3


def test_processes_that_torchrun_started_share_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines with four processes each: what counts are the four."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert worker_count(PretrainConfig()) == 7
