"""How many processes decode images beside one that computes, and how much they may have ready."""

import os
import shutil
import sys
from pathlib import Path

READY_BYTES = 2**31
"""Of pieces, or batches, that all decoders of one process have ready, where each has more than one."""
_SHARED_MEMORY = Path("/dev/shm")


def decoder_count(asked: int | None, sharing: int = 1) -> int:
    """Return as many as asked for; without a word, one less than a process's share of the cores, 1 to 16.

    Args:
        asked: a number, or None.
        sharing: how many processes of this machine share its cores.
    """
    return max(1, min(16, available_cores() // sharing - 1)) if asked is None else asked


def shared_memory() -> int:
    """Return the bytes of shared memory, in which lies what decoders have ready: in containers little,
    Docker's 64 MiB unless told otherwise."""
    return shutil.disk_usage(_SHARED_MEMORY).total if _SHARED_MEMORY.is_dir() else sys.maxsize


def in_advance(asked: int, piece_bytes: int, most: int, sharing: int = 1) -> tuple[int, int]:
    """Return how many decoders work, 0 where there is no room for one, and how many pieces each has ready.

    They may fill half of the shared memory. That goes by all there is, not by what is free, which differs
    from one start to the next.

    Args:
        asked: decoders, at most.
        piece_bytes: of a piece, or batch.
        most: pieces that a decoder may have ready.
        sharing: how many processes of this machine share the memory.
    """
    room = shared_memory() // 2 // sharing // piece_bytes - 2  # of which whoever takes them holds two
    decoders = max(0, min(asked, room))
    return decoders, max(1, min(most, min(room, READY_BYTES // piece_bytes) // max(1, decoders)))


def available_cores() -> int:
    """Return how many cores this process may use: under SLURM or in a container not all of the machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 2
