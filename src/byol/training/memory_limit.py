"""How many bytes of images a run holds on its device."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from byol.config import PretrainConfig
from byol.data.images import LIMIT_BYTES
from byol.training.processes import launch_of

_LIMIT_FILES = {"": "memory.max", "memory": "memory/memory.limit_in_bytes"}
"""Of control groups, by their controllers: version 2 names none."""


def memory_limit(config: PretrainConfig) -> int:
    """Return how many bytes of images each process of a run may hold; no limit where it was told to.

    It goes by all the memory there is rather than by what is free, which differs from one start of a command
    to the next, and by the smallest GPU: the processes of a machine choose alike.
    """
    if config.in_memory == "on":
        return sys.maxsize
    gpus = torch.cuda.device_count()
    if config.in_memory == "off" or not gpus:
        return LIMIT_BYTES
    on_device = min(torch.cuda.get_device_properties(gpu).total_memory for gpu in range(gpus)) // 4
    # Every process reads the images into the machine's memory, and measures kNN on them there.
    in_machine = machine_memory() // (4 * launch_of(config).devices)
    return min(on_device, max(LIMIT_BYTES, in_machine))


def machine_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process can use at most: the machine's, or those of its container
    or job. 0 where the system does not tell.

    Args:
        root: folder under which the system's files `proc` and `sys` are looked for.
    """
    if not hasattr(os, "sysconf"):  # not on every system
        return 0
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_group_limits(root)])


def _group_limits(root: Path) -> Iterator[int]:
    """Yield the limits of this process's control groups and of all that these are in."""
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, group = line.split(":", 2)
        if controllers in _LIMIT_FILES:
            file = root / "sys/fs/cgroup" / _LIMIT_FILES[controllers]
            for folder in (Path(group.strip("/")), *Path(group.strip("/")).parents):
                yield from _number(file.parent / folder / file.name)


def _number(file: Path) -> Iterator[int]:
    """Yield the number in a file where there is one; "max" is none."""
    text = file.read_text().strip() if file.is_file() else ""
    if text.isdigit():
        yield int(text)
