"""Random generators derived from plain numbers, so that global random state plays no part."""

import numpy as np
import torch


def derived_generator(*parts: int) -> torch.Generator:
    """Return a CPU generator that depends on non-negative `parts` (seed, epoch, index, ...) only."""
    state = np.random.SeedSequence(parts).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
