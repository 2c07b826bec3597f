"""Leaving the other processes: over NCCL each waits for all of its machine, or for one that is gone."""

import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from byol.training import byol_trainer, peer_processes
from byol.training.byol_trainer import BYOLTrainer
from byol.training.peer_processes import PeerProcesses

# An error, and then an end of the program that waits for ever.
STUCK = """
import atexit, time
from byol.training import process_group
process_group._SECONDS_TO_LEAVE = 0.1
atexit.register(time.sleep, 600)
process_group.end_soon_after_error()
time.sleep(0.5)  # what is left to do before the end has time
print("still here", flush=True)
raise KeyError
"""


def test_processes_are_left_before_they_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They part when they end, and would wait there for this one, which would wait for their end."""
    done: list[str] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: done.append("left"))
    trainer: Any = SimpleNamespace(global_rank=0)
    made = PeerProcesses(SimpleNamespace(), trainer, SimpleNamespace(), print, is_new=True)  # type: ignore[arg-type]
    made.started = SimpleNamespace(wait=lambda: done.append("waited"))  # type: ignore[assignment]
    made.finish()
    assert done == ["left", "waited"]


@pytest.mark.parametrize("initialized", [True, False])
def test_a_run_that_failed_among_others_ends_soon(initialized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: initialized)
    monkeypatch.setattr(peer_processes, "end_soon_after_error", lambda: calls.append("called"))
    trainer: Any = SimpleNamespace(global_rank=0)
    made = PeerProcesses(SimpleNamespace(), trainer, SimpleNamespace(), print, is_new=True)  # type: ignore[arg-type]
    made.end()
    assert calls == ["called"] * initialized


def test_after_an_error_the_end_of_the_program_does_not_wait_for_ever() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "still here\n") and "KeyError" in done.stderr


@pytest.mark.parametrize(("count", "fails"), [(2, True), (2, False), (1, True)])
def test_a_trainer_that_fails_among_others_ends_soon(
    count: int, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(byol_trainer, "end_soon_after_error", lambda: calls.append("called"))
    monkeypatch.setattr(dist, "barrier", lambda: calls.append("met"))
    trainer: Any = SimpleNamespace(process=SimpleNamespace(count=count))
    with pytest.raises(KeyError) if fails else nullcontext(), BYOLTrainer._among_others(trainer):
        if fails:
            raise KeyError
    assert calls == (["called" if fails else "met"] if count > 1 else [])
