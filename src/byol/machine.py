"""What this process may use of its machine: memory, shared memory, cores; in a container or job not all."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")
_ROOT = Path("/")


def machine_memory(root: Path = _ROOT) -> int:
    """Return the bytes of memory; 0 where the system does not tell.

    Args:
        root: folder under which the system's files `proc` and `sys` are looked for.
    """
    if not hasattr(os, "sysconf"):  # not on every system
        return 0
    limits = _limits(root, "memory", "memory.max", "memory.limit_in_bytes")
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *(limit for limit, _ in limits)])


def shared_memory() -> int:
    """Return the bytes of shared memory, through which processes hand over tensors: in containers little,
    Docker's 64 MiB unless told otherwise. Where the system knows no limit it is a very large number."""
    total = shutil.disk_usage(_SHARED_MEMORY).total if _SHARED_MEMORY.is_dir() else 0
    return total or sys.maxsize


def available_cores(root: Path = _ROOT) -> int:
    """Return the number of cores: as many of the visible ones as a limit of time allows (`docker --cpus 4`).

    Args:
        root: as for `machine_memory`.
    """
    quotas = _limits(root, "cpu", "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
    return max(1, min([visible_cores(), *(time // period for time, period in quotas)]))


def visible_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 2


def _limits(root: Path, controller: str, file: str, *older_files: str) -> Iterator[tuple[int, int]]:
    """Yield the limits of this process's control groups and of all that these are in, each with a second
    number, or 1.

    Args:
        root: where the system's files are.
        controller: what is limited.
        file: of control groups in version 2, which name no controller: one or two numbers; "max" is none.
        older_files: of those in version 1: one number each; -1 is none.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top, names = root / "sys/fs/cgroup", (older_files if controllers else (file,))
        if controllers:  # mounted under all of their names, in some order, with a link for each
            top /= controllers if (top / controllers).is_dir() else controller
        for folder in (Path(group.strip("/")), *Path(group.strip("/")).parents):
            words = " ".join(_text(top / folder / name) for name in names).split()
            if words and all(word.isdigit() for word in words):
                yield int(words[0]), int(words[1]) if len(words) > 1 else 1


def _text(file: Path) -> str:
    """Return what a file of the system's holds; nothing where it cannot be read."""
    try:
        return file.read_text()
    except OSError:
        return ""
