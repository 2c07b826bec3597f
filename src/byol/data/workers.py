"""A loader's workers: how they are started, hand over what they made, and take stop signals."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from byol.errors import UserError, one_line

_SECONDS_TO_HEAR = 1
"""Of the end of a process."""


def start_method(num_workers: int) -> str | None:
    """Return a loader's `multiprocessing_context`: workers are forks on Linux, as they were by default until
    Python 3.14; None: as Python starts them.

    What Python has instead imports torch in each worker and runs the program's file again, wants data that
    can be pickled, and lets the workers of a process that was killed live on, as they are not its children.
    Whoever has chosen `multiprocessing.set_start_method("spawn")` gets that.
    """
    spawns = multiprocessing.get_start_method(allow_none=True) == "spawn"
    return "fork" if num_workers and sys.platform == "linux" and not spawns else None


def more_shared_memory(gib: int) -> str:
    """Return how a container gets so much."""
    ways = f"--shm-size={gib}g (Docker) or a memory volume at /dev/shm (Kubernetes)"
    return f"a container gets {gib} GiB with {ways}"


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape as one; in a worker it lies in shared memory from the start.

    A tensor that is moved there on its way out of a worker goes missing where that memory is full, with
    everybody waiting for it.

    Raises:
        UserError: shared memory is full.
    """
    try:
        together: Tensor = default_collate(list(tensors))
    except RuntimeError as error:
        if "file </torch_" not in str(error):
            raise
        full = "the shared memory (/dev/shm), through which workers hand over images, is full"
        raise UserError(f"{full}: fewer --num-workers take less; {more_shared_memory(8)}") from error
    return together


def lost_worker_message(error: BaseException) -> str | None:
    """Return what to say where an error comes from a worker that ended before its time; None of another one.

    A signal brings PyTorch's error, at any place: also where another one is made of it, as in the midst of
    saving, or a moment after the connection that a batch was to come through has broken.
    """
    if isinstance(error, ConnectionError | EOFError):
        try:
            time.sleep(_SECONDS_TO_HEAR)
        except RuntimeError as told:
            error = told
    for one in _origins(error):
        text = one_line(one).rstrip(".")
        if isinstance(one, RuntimeError) and text.startswith("DataLoader worker (pid"):
            advice = "If memory ran out, fewer --num-workers take less"
            return f"a process that decodes images has ended: {text}. {advice}"
    return None


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and those that it comes from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
