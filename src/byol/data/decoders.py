"""How many processes decode images beside one that computes, and how much they may have ready."""

from byol.machine import available_cores, shared_memory

READY_BYTES = 2**31
"""Of pieces, or batches, that all decoders of one process have ready, where each has more than one."""


def decoder_count(asked: int | None, sharing: int = 1) -> int:
    """Return as many as asked for; without a word, one less than a process's share of the cores, 1 to 16.

    Args:
        asked: a number, or None.
        sharing: how many processes of this machine share its cores.
    """
    return max(1, min(16, available_cores() // sharing - 1)) if asked is None else asked


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
