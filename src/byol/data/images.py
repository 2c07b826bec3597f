"""Image sets in memory, parts of sets, and sets laid end to end.

Each satisfies `byol.types.ImageSet` and can be pickled for a DataLoader's workers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from byol.data.labels import checked_labels, checked_names
from byol.data.masks import SomeMasks
from byol.errors import UserError
from byol.types import ImageSet, Masks, Picture

LIMIT_BYTES = 2 * 1024**3
"""Of all images of a set together that are held in memory, unless a caller knows better."""
_LOOKED_AT = 32
"""Images of a set, at most, for what is typical of it."""


class TensorImages:
    """Images of one shape, held as a single uint8 tensor [N,C,H,W]."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        class_names: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        masks: Masks | None = None,
    ) -> None:
        """Hold images; names default to the class numbers, keys to "0", "1", ...

        Args:
            images: uint8 [N,C,H,W], kept as it is.
            labels: [N] whole numbers in 0..classes-1.
            class_names: A name for each class, in the order of the numbers.
            keys: An id for each image.
            masks: One for each image.

        Raises:
            UserError: a shape, type or range is wrong.
        """
        _check_bytes(images)
        if keys is not None and len(keys) != len(images):
            raise UserError(f"{len(images)} images need as many keys, not {len(keys)}")
        self.images = images
        self.keys: Sequence[str] = tuple(map(str, range(len(images)))) if keys is None else tuple(keys)
        self.labels = None if labels is None else checked_labels(labels, len(images))
        self.class_names = None if self.labels is None else checked_names(self.labels, class_names)
        self.masks = masks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


class Subset:
    """Some images of a set, in the order of `indices`."""

    def __init__(self, image_set: ImageSet, indices: Tensor | Sequence[int]) -> None:
        """Choose images by their indices, each in 0..len(image_set)-1; a part of a part is flattened.

        Raises:
            UserError: an index lies outside the set.
        """
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(image_set):
            raise UserError(f"indices must lie in 0..{len(image_set) - 1}")
        if isinstance(image_set, Subset):
            chosen, image_set = image_set.indices[chosen], image_set.image_set
        self.image_set: ImageSet = image_set
        self.indices: Tensor = chosen
        keys, labels = image_set.keys, image_set.labels
        self.keys: Sequence[str] = tuple(keys[index] for index in chosen.tolist())
        self.labels = None if labels is None else labels[chosen]
        self.class_names = image_set.class_names
        self.masks: Masks | None = None if image_set.masks is None else SomeMasks(image_set.masks, chosen)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Tensor:
        return self.image_set[int(self.indices[index])]

    def picture(self, index: int) -> Picture:
        """Return image `index` as `picture` does."""
        return picture(self.image_set, int(self.indices[index]))


class Concatenation:
    """Two sets end to end, without labels and masks: what is trained on where some images have none."""

    labels: Tensor | None = None
    class_names: Sequence[str] | None = None
    masks: Masks | None = None

    def __init__(self, first: ImageSet, second: ImageSet) -> None:
        """Lay `second` after `first`."""
        self.first = first
        self.second = second
        self.keys: Sequence[str] = (*first.keys, *second.keys)

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: int) -> Tensor:
        part, row = self._place(index)
        return part[row]

    def picture(self, index: int) -> Picture:
        """Return image `index` as `picture` does."""
        return picture(*self._place(index))

    def _place(self, index: int) -> tuple[ImageSet, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        boundary = len(self.first)
        return (self.first, index) if index < boundary else (self.second, index - boundary)


@dataclass(frozen=True)
class _DecodedPicture:
    """An image that is there already."""

    image: Tensor

    @property
    def height(self) -> int:
        return self.image.shape[1]

    @property
    def width(self) -> int:
        return self.image.shape[2]

    def reduction(self, side: int, wanted: int) -> int:
        return 1

    def pixels(self, reduction: int = 1) -> Tensor:
        return self.image


@runtime_checkable
class _HasPictures(Protocol):
    def picture(self, index: int) -> Picture: ...


def picture(image_set: ImageSet, index: int) -> Picture:
    """Return an image of a set: where it is encoded, with no more than its header read."""
    if isinstance(image_set, _HasPictures):
        return image_set.picture(index)
    return _DecodedPicture(image_set[index])


def resident(image_set: ImageSet, limit_bytes: int = LIMIT_BYTES, largest_side: int = 128) -> Tensor | None:
    """Return every image as one uint8 tensor [N,C,H,W], or None where that is not sensible.

    None where shapes differ, a side exceeds `largest_side` pixels, all images together exceed
    `limit_bytes`, or there are none. The first image decides on size, so that a set of photographs
    is turned down after one decode; the first image of another shape ends the reading. Images that are one
    tensor already, all of them in their order, are that tensor and no copy.
    """
    if len(image_set) == 0:
        return None
    first = image_set[0]  # [C,H,W]
    if max(first.shape[1:]) > largest_side or first.numel() * len(image_set) > limit_bytes:
        return None
    return _stacked(image_set, first.shape)


def rows_in_memory(image_set: ImageSet, rows: Tensor) -> Tensor | None:
    """Return the images `rows` [B] as [B,C,H,W] where they are tensors already, however large; else None."""
    if isinstance(image_set, Subset):
        return rows_in_memory(image_set.image_set, image_set.indices[rows])
    return image_set.images[rows] if isinstance(image_set, TensorImages) else None


def natural_side(image_set: ImageSet, images: Tensor | None) -> int:
    """Return the side of views in pixels that suits a set: its images' own where all are known to be square
    and alike, at most 128; else 224. They are where `images` [N,C,H,W] are all of them, or the set is one of
    tensors, however large."""
    shape = _known_shape(image_set) if images is None else images.shape[1:]
    return shape[1] if shape is not None and shape[1] == shape[2] <= 128 else 224


def typical_side(image_set: ImageSet) -> int:
    """Return the median of the shorter sides in pixels of some images, spread over the set.

    Raises:
        UserError: one of them cannot be read.
    """
    step = math.ceil(len(image_set) / _LOOKED_AT)
    pictures = (picture(image_set, index) for index in range(0, len(image_set), step))
    return median_low(min(found.height, found.width) for found in pictures)


def in_memory(image_set: ImageSet, limit_bytes: int = LIMIT_BYTES, largest_side: int = 128) -> ImageSet:
    """Return the same images held as one tensor where `resident` finds that sensible, else as they are.

    Masks stay where they are.
    """
    images = None
    if not isinstance(image_set, TensorImages):
        images = resident(image_set, limit_bytes, largest_side)
    if images is None:
        return image_set
    return TensorImages(images, image_set.labels, image_set.class_names, image_set.keys, image_set.masks)


def _stacked(image_set: ImageSet, shape: torch.Size) -> Tensor | None:
    if isinstance(image_set, TensorImages):
        return image_set.images if image_set.images.shape[1:] == shape else None
    if isinstance(image_set, Subset) and isinstance(image_set.image_set, TensorImages):
        images, indices = image_set.image_set.images, image_set.indices
        return images if torch.equal(indices, torch.arange(len(images))) else images[indices]
    if isinstance(image_set, Concatenation):
        first = _stacked(image_set.first, shape)
        second = None if first is None else _stacked(image_set.second, shape)
        return None if first is None or second is None else torch.cat([first, second])
    return _read(image_set, shape)


def _known_shape(image_set: ImageSet) -> torch.Size | None:
    """Return the shape [C,H,W] of all images where it is known without reading one."""
    if isinstance(image_set, Subset):
        return _known_shape(image_set.image_set)
    if isinstance(image_set, Concatenation):
        shape = _known_shape(image_set.first)
        return shape if shape == _known_shape(image_set.second) else None
    return image_set.images.shape[1:] if isinstance(image_set, TensorImages) else None


def _read(image_set: ImageSet, shape: torch.Size) -> Tensor | None:
    images = torch.empty((len(image_set), *shape), dtype=torch.uint8)  # [N,C,H,W]
    for index in range(len(image_set)):
        image = image_set[index]
        if image.shape != shape:
            return None
        images[index] = image
    return images


def _check_bytes(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise UserError(
            "images must be a uint8 tensor [N,C,H,W] with values 0..255, "
            f"not {images.dtype} {list(images.shape)}"
        )
