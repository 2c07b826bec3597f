"""Masks: the class of every pixel of an image, as 8-bit grey or palette pictures hold it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from byol.errors import UserError, first_line
from byol.types import Masks

VOID = 255
"""The class number of pixels that belong to no class, by the convention of Pascal VOC and Cityscapes."""


@dataclass(frozen=True)
class PixelClasses:
    """What the numbers in masks mean."""

    names: tuple[str, ...]
    """Of the classes 0, 1, ..."""
    void: int = VOID
    """The number of pixels that are neither learned from nor scored."""


_KNOWN = {
    # The eleven classes of Badrinarayanan et al. (SegNet, arXiv 1511.00561, section 4.1).
    "camvid": PixelClasses(
        (
            *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
            *("pedestrian", "bicyclist"),
        ),
        void=11,
    ),
}


def known_pixel_classes(data: str) -> PixelClasses | None:
    """Return the classes of a well-known set, by the last part of a data source's name; else None."""
    return _KNOWN.get(Path(data.partition(":")[2] or data).name)


class EncodedMasks:
    """A column of encoded masks {bytes, path}, decoded when they are read.

    An image with an EXIF orientation is turned when it is read. Some tools store masks in the order of the
    file, others of the turned image, and masks rarely say: such a mask is refused.
    """

    def __init__(self, column: Any, keys: Sequence[str], orientation: Callable[[int], int]) -> None:
        """Read a `datasets.Dataset` of one column that yields {bytes, path}.

        Args:
            column: the dataset.
            keys: the images'.
            orientation: gives the EXIF orientation of image `index`, 1 being upright.
        """
        self.column = column
        self.name = column.column_names[0]
        self.keys = keys
        self.orientation = orientation
        self.upright: set[int] = set()

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Tensor:
        encoded = self.column[index][self.name] or {}
        source, key = encoded.get("bytes"), self.keys[index]
        if source is None and not encoded.get("path"):
            raise _unreadable(key, "the row is empty")
        self._check_upright(index)
        return decode_mask(Path(encoded["path"]) if source is None else source, key)

    def _check_upright(self, index: int) -> None:
        if index in self.upright:
            return
        if (turned := self.orientation(index)) != 1:
            raise UserError(
                f"image '{self.keys[index]}' has EXIF orientation {turned}, and whether its mask is to be "
                "turned with it is not known: store both upright, without that tag"
            )
        self.upright.add(index)


class SomeMasks:
    """Some masks of others, in the order of `indices`."""

    def __init__(self, masks: Masks, indices: Tensor) -> None:
        self.masks = masks
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Tensor:
        return self.masks[int(self.indices[index])]


def decode_mask(source: bytes | Path, name: str = "mask") -> Tensor:
    """Return the class numbers of a mask as uint8 [H,W]: grey values, or indices into the palette.

    Wider grey values are kept where they fit into 0..255.

    Args:
        source: the encoded bytes, or a file.
        name: what to call the mask in an error.

    Raises:
        UserError: it is no picture, has colours, or numbers above 255.
    """
    try:
        image = Image.open(BytesIO(source if isinstance(source, bytes) else source.read_bytes()))
        numbers = np.array(image)
    # Broken files make PIL's decoders raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise _unreadable(name, first_line(error)) from error
    if numbers.ndim != 2 or image.mode == "F":
        raise _unreadable(name, f"it is of mode {image.mode}, not grey or with a palette")
    if not 0 <= numbers.min() <= numbers.max() <= 255:
        raise _unreadable(name, f"its values run from {numbers.min()} to {numbers.max()}")
    return torch.from_numpy(numbers.astype(np.uint8))


def _unreadable(name: str, reason: str) -> UserError:
    return UserError(
        f"cannot read the mask of image '{name}': {reason}; a mask holds class numbers 0..255, "
        "such as an 8-bit grey PNG or one with a palette"
    )
