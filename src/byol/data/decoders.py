"""How many processes decode images beside one that computes, and how much they may have ready."""

import os

READY_BYTES = 2**31
"""Of batches that all decoders of one process have ready: they lie in shared memory, of which containers
have little."""


def decoder_count(asked: int | None, sharing: int = 1) -> int:
    """Return as many as asked for; without a word, one less than a process's share of the cores, 1 to 16.

    Args:
        asked: a number, or None.
        sharing: how many processes of this machine share its cores.
    """
    return max(1, min(16, available_cores() // sharing - 1)) if asked is None else asked


def available_cores() -> int:
    """Return how many cores this process may use: under SLURM or in a container not all of the machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 2
