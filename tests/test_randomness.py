"""Seeds from keys: what a key is for tells it from others."""

from itertools import combinations

from byol.randomness import CELLS, CROPS, DROPOUT, NETWORK, ORDER, VIEWS, derived_seed


def test_uses_of_the_same_numbers_share_no_seed() -> None:
    """A step's number and a process's rank stand behind: those of the first are zeros."""
    purposes = (ORDER, VIEWS, CROPS, NETWORK, CELLS, DROPOUT)
    for seed in (0, 1, 7):
        keys = [key for purpose in purposes for key in ((seed, purpose, 0, 0), (seed, purpose, 1, 0))]
        assert all(derived_seed(*one) != derived_seed(*other) for one, other in combinations(keys, 2))
        assert derived_seed(seed, NETWORK) not in [derived_seed(seed, DROPOUT, 0, rank) for rank in range(4)]


def test_zeros_at_the_end_of_a_short_key_do_not_count() -> None:
    assert derived_seed(5, 1) == derived_seed(5, 1, 0) == derived_seed(5, 1, 0, 0)
    assert derived_seed(5, 1) != derived_seed(0, 5, 1)
