"""How many processes decode images beside one that computes, and how much they may have ready."""

from byol.machine import available_cores, shared_memory

_READY_BYTES = 2**31
"""Of pieces, or batches, that all decoders of one process have ready, where each has more than one."""
_HELD = 2
"""Pieces that whoever takes them holds."""


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
    room = _room(sharing) // piece_bytes - _HELD
    decoders = max(0, min(asked, room))
    return decoders, max(1, min(most, min(room, _READY_BYTES // piece_bytes) // max(1, decoders)))


def largest_piece(asked: int, item_bytes: int, most: int) -> int:
    """Return of how many items a piece may consist, 1 or more, for all decoders to have as many ready."""
    return max(1, min(_READY_BYTES, _room()) // (item_bytes * (most * asked + _HELD)))


def enough_shared_memory(asked: int, piece_bytes: int, sharing: int = 1) -> int:
    """Return the bytes of shared memory in which all decoders have a piece ready; as for `in_advance`."""
    return (asked + _HELD) * piece_bytes * sharing * 2


def _room(sharing: int = 1) -> int:
    return shared_memory() // 2 // sharing
