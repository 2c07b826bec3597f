"""The other side of `benchmarks/turns.py`: work once for every line that comes in. Needs torch alone."""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch


def take_turns(work: Callable[[], object], measure: Callable[[Callable[[], object]], dict[str, Any]]) -> None:
    """Answer every line of standard input with what `measure` finds of the work; nothing else is printed."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for _ in sys.stdin:
        print(json.dumps(measure(work)), file=answers, flush=True)


def seconds(work: Callable[[], object], times: int = 1) -> dict[str, float]:
    """Return the wall-clock time of the work, on a GPU until it is done; of several times, the mean.

    There all take turns with its memory, too: it is given back after each, and taken before the clock runs.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        work()
    _wait()
    start = time.perf_counter()
    for _ in range(times):
        work()
    _wait()
    taken = (time.perf_counter() - start) / times
    if on_gpu:
        torch.cuda.empty_cache()
    return {"seconds": taken}


def memory(work: Callable[[], object], before: Callable[[], object] = lambda: None) -> dict[str, int]:
    """Return the most bytes of tensors at a time during the work, beyond those there are after `before`."""
    before()
    gc.collect()  # what is let go of in the middle of the work would make it seem smaller
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        at_first = torch.cuda.memory_allocated()
        work()
        most = torch.cuda.max_memory_allocated() - at_first
        torch.cuda.empty_cache()
        return {"bytes": most}
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return {"bytes": max(accumulate(change for _, change in changes))}


def set_up_torch(count: int | None) -> None:
    """Compute on so many threads; None: one a core. On a GPU cuDNN times its kernels for all libraries, as it
    does in `byol pretrain`."""
    torch.set_num_threads(count or _cores())
    torch.backends.cudnn.benchmark = True


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
