"""Random images, to try a training script on before there are data."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from byol.randomness import derived_generator


class MockDataset(Dataset[Tensor]):
    """Images of noise, float [3,S,S] in [0,1]; an index always gives the same one.

    Args:
        image_size: side S in pixels.
        length: number of images.
    """

    def __init__(self, image_size: int, length: int) -> None:
        self.image_size = image_size
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < self.length:
            raise IndexError(f"image {index} of {self.length}")
        return torch.rand(3, self.image_size, self.image_size, generator=derived_generator(index))
