"""How a process leaves the group that it has joined (`processes.py`): in order at its end, and within seconds
after an error."""

import atexit
import os
import threading
import time

import torch.distributed as dist

_SECONDS_TO_LEAVE = 20


def leave_at_exit() -> None:
    """Leave in order when the program ends: NCCL complains about a group that is still there then, and
    gloo's threads can abort the process."""
    atexit.register(leave)


def leave() -> None:
    """Leave the others, who must do so too: over NCCL each waits here for all of its machine."""
    if dist.is_initialized():
        dist.destroy_process_group()


def end_soon_after_error() -> None:
    """Let the program, once it ends, do so within seconds. NCCL would wait there for processes that are gone,
    or that wait for this one inside a step."""
    ending = threading.Event()

    def end() -> None:
        ending.wait()
        time.sleep(_SECONDS_TO_LEAVE)
        os._exit(2)

    # Started now: a program that is at its end starts no thread any more.
    threading.Thread(target=end, name="end-soon", daemon=True).start()
    atexit.register(ending.set)
