"""The other side of `benchmarks/turns.py`: work once for every line that comes in. Needs torch alone."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def take_turns(work: Callable[[], object], measure: Callable[[Callable[[], object]], dict[str, Any]]) -> None:
    """Answer every line of standard input with what `measure` finds of the work; nothing else is printed."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for _ in sys.stdin:
        print(json.dumps(measure(work)), file=answers, flush=True)


def seconds(work: Callable[[], object]) -> dict[str, float]:
    """Return the wall-clock time of the work, on a GPU until it is done."""
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return {"seconds": time.perf_counter() - start}


def memory(work: Callable[[], object]) -> dict[str, int]:
    """Return the most bytes in use during the work, and what of it was there before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return {"before": before, "peak": torch.cuda.max_memory_allocated()}
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _resident("VmRSS")
    work()
    return {"before": before, "peak": _resident("VmHWM")}


def use_threads(count: int | None) -> None:
    """Compute on so many threads; None: one a core."""
    torch.set_num_threads(count or len(os.sched_getaffinity(0)))


def _resident(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
