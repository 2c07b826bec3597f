"""The line that tells how a run is doing."""

import io
from types import SimpleNamespace
from typing import Any

import pytest

from byol.training import progress
from byol.training.progress import Progress


def shown(steps: list[int], seconds: list[float], total: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines of a run that logs these steps at these times."""
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    bar = Progress(total, stream)
    for step, now[0] in zip(steps, seconds, strict=True):
        record: dict[str, Any] = {"step": step, "epoch": 0.5, "loss": 1.0}
        bar.show({**record, "images_per_second": 100.0, "data_wait": 0.0})
    return stream.getvalue().splitlines()


def test_days_are_told_in_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown([10, 20], [1000.0, 1000.0 + 10 * 61.5], 10_000, monkeypatch)
    assert lines[1].endswith("  170:29:30 to go")  # 9,980 steps of 61.5 seconds
    assert shown([1, 2], [1.0, 62.0], 3, monkeypatch)[1].endswith("  1:01 to go")
    assert shown([1, 2], [1.0, 3.0], 3, monkeypatch)[1].endswith("  0:02 to go")


def test_a_long_run_writes_a_line_every_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a short one about twenty."""
    steps = list(range(20, 2001, 20))  # of a run of 100,000: a twentieth has 5,000
    slow = shown(steps, [59.0 * number for number in range(1, 101)], 100_000, monkeypatch)
    assert 9 <= len(slow) <= 11
    quick = shown(list(range(1, 2001)), [0.01 * number for number in range(1, 2001)], 2000, monkeypatch)
    assert 20 <= len(quick) <= 22
