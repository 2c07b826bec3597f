"""How a loader's workers are started, and what they do about stop signals."""

import ctypes
import multiprocessing
import os
import signal
import sys
from functools import lru_cache, partial
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any


def start_method(num_workers: int) -> str | None:
    """Return a loader's `multiprocessing_context`: workers are forks on Linux, as they were by default until
    Python 3.14; None: as Python starts them.

    What Python has instead imports torch in each worker and runs the program's file again, wants data that
    can be pickled, and lets the workers of a process that was killed live on, as they are not its children.
    Whoever has chosen `multiprocessing.set_start_method("spawn")` gets that.
    """
    spawns = multiprocessing.get_start_method(allow_none=True) == "spawn"
    return "fork" if num_workers and sys.platform == "linux" and not spawns else None


def ignore_stop_signals() -> "partial[None]":
    """Return a loader's `worker_init_fn`: its workers leave stop signals to the process that loads.

    They often go to all processes of a job, and the last step needs its batch. Only where that process
    is at its end already, a SIGTERM ends a worker: there Python sends one, and waits for the worker.
    """
    return partial(_ignore, _leaving(os.getpid()))


def _ignore(leaving: Any, worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

    def receive(number: int, frame: FrameType | None) -> None:
        if leaving.value:
            os._exit(0)

    signal.signal(signal.SIGTERM, receive)


@lru_cache(maxsize=1)
def _leaving(process: int) -> Any:
    """Return a flag that a process shares with its workers: it is at its end.

    A forked process has inherited its parent's flag, and needs its own. Exit handlers (`atexit`) do not run
    in one that multiprocessing started; finalizers do, before Python ends the workers.
    """
    flag = multiprocessing.RawValue(ctypes.c_bool, False)
    Finalize(None, setattr, (flag, "value", True), exitpriority=100)
    return flag
