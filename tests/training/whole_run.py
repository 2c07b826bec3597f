"""Runs in float64 on views that do not depend on chance: `python -m tests.training.whole_run RUNS`.

RUNS is JSON: for each run of `byol pretrain`, which two processes do, a port and words.

What then remains of the number of processes and of accumulation is the order of sums.
"""

import atexit
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor

from byol.cli import main
from byol.training import trainer, view_makers
from byol.types import View
from tests.training.two_trainers import be_one_of_two


def same_everywhere(set_attribute: Callable[..., None] = setattr) -> None:
    """Make runs comparable to the last digits, in this process."""
    set_attribute(trainer, "_PRECISIONS", {"fp32": "64-true"})
    set_attribute(view_makers, "made_views", plain_views)
    set_attribute(view_makers, "with_geometry", plain_geometry)


def plain_views(images: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """Return the images [B,C,H,W] and their mirror images, in -1 to 1."""
    values = images.double() / 127.5 - 1
    return values, values.flip(3)


def plain_geometry(views: tuple[Tensor, Tensor], *_: Any) -> tuple[View, View]:
    """Return plain views with what made them: the whole image, and its mirror image."""
    first, second = views
    box = first.new_tensor([0, 0, 1, 1]).expand(len(first), 4)
    mirrored = torch.ones(len(first), dtype=torch.bool)
    return View(first, box, ~mirrored), View(second, box, mirrored)


def tell_whether_left() -> None:
    if dist.is_initialized():
        print("the process group is still there at exit", file=sys.stderr)


def forked(rank: int, port: int, words: list[str]) -> int:
    """Start a process that does the run with the variables that torchrun would give it; return its number."""
    process = os.fork()
    if process:
        return process
    signal.alarm(100)  # where the other one has died, this one would wait for it for half an hour
    atexit.register(tell_whether_left)  # registered first, called last
    be_one_of_two(rank, port)
    rank_zero_only.rank = rank  # Lightning took it from the variables when it was imported, before the fork
    sys.exit(main(["pretrain", *words]))


if __name__ == "__main__":
    # Imported before the forks: that is most of the time.
    import sklearn.datasets  # noqa: F401

    import byol.training.session  # noqa: F401

    same_everywhere()
    for port, words in json.loads(sys.argv[1]):
        processes = [forked(rank, port, words) for rank in (0, 1)]
        ends = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        if ends != [0, 0]:
            sys.exit(f"the processes ended with {ends}")
