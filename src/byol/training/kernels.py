"""The choice of kernels for convolutions on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn


@contextmanager
def kernels_timed() -> Iterator[None]:
    """Let cuDNN time its kernels for each shape of a convolution and keep the fastest; afterwards as before.

    All batches of a run have one shape. Another start may choose another kernel, whose sums are rounded
    differently: where the program asks for deterministic ones, and without a GPU, this does nothing.
    """
    if not torch.cuda.is_available() or cudnn.deterministic or torch.are_deterministic_algorithms_enabled():
        yield
        return
    before, cudnn.benchmark = cudnn.benchmark, True
    try:
        yield
    finally:
        cudnn.benchmark = before
