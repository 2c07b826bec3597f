"""Randomness is derived, not carried: every draw comes from a key such as (seed, step, rank).

So results do not depend on how many workers there are, and resuming needs only the position.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

ORDER, VIEWS, CROPS, NETWORK, CELLS, DROPOUT = range(6)
"""What a key is for, so that two uses of the same numbers do not share their randomness."""


def derived_seed(*key: int) -> int:
    """Return 32 well-mixed bits from whole numbers >= 0 (numpy's SeedSequence).

    Zeros at the end do not count, of keys of four numbers or fewer: (1, 0) gives what (1,) gives.
    """
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def derived_generator(*key: int) -> torch.Generator:
    """Return a CPU generator whose stream is a function of `key`."""
    return torch.Generator().manual_seed(derived_seed(*key))


@lru_cache(maxsize=2)  # each batch of an epoch asks for it
def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the permutation [count] in which images come in an epoch; not to be written to."""
    return torch.randperm(count, generator=derived_generator(seed, ORDER, epoch))
