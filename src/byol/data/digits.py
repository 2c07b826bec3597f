"""scikit-learn's handwritten digits: real images that need no download."""

import numpy as np
import torch

from byol.data.channels import with_channels
from byol.data.images import TensorImages
from byol.data.opened import Source

_TRAIN = 1297


def open_digits(channels: int = 1) -> Source:
    """Return 1297 train and 500 test digits, uint8 [C,8,8], labelled 0-9.

    scikit-learn publishes no split; ours is a permutation drawn once (numpy's `default_rng(0)`).
    A key is the image's index in scikit-learn's order. With 3 channels the grey is repeated.
    """
    from sklearn.datasets import load_digits

    published = load_digits()
    grey = np.rint(published.images * (255 / 16)).astype(np.uint8)  # [1797,8,8], 0..16 -> 0..255
    images = with_channels(torch.from_numpy(grey).unsqueeze(1), channels)  # [1797,8,8] -> [1797,C,8,8]
    labels = torch.from_numpy(published.target)
    names = [str(digit) for digit in range(10)]
    order = np.random.default_rng(0).permutation(len(images))
    train, test = (
        TensorImages(images[part], labels[part], names, [str(index) for index in part])
        for part in (order[:_TRAIN], order[_TRAIN:])
    )
    return Source("digits", train, test, channels=channels)
