"""What a loader's workers do about stop signals."""

import atexit
import ctypes
import multiprocessing
import multiprocessing.util  # whose own exit handler must be registered before ours, to run after it
import os
import signal
from functools import lru_cache, partial
from types import FrameType
from typing import Any


def ignore_stop_signals() -> "partial[None]":
    """Return a loader's `worker_init_fn`: its workers leave stop signals to the main process.

    They often go to all processes of a job, and the last step needs its batch. Only where the main process
    is at its end already, a SIGTERM ends a worker: there Python sends one, and waits for the worker.
    """
    return partial(_ignore, _leaving())


def _ignore(leaving: Any, worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

    def receive(number: int, frame: FrameType | None) -> None:
        if leaving.value:
            os._exit(0)

    signal.signal(signal.SIGTERM, receive)


@lru_cache(maxsize=1)
def _leaving() -> Any:
    """Return a flag that the workers share: the main process runs its exit handlers."""
    flag = multiprocessing.RawValue(ctypes.c_bool, False)
    atexit.register(setattr, flag, "value", True)
    return flag
