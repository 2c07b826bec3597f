"""The shapes that the layers hand to each other, stated once.

Letters in shape comments: B images in a batch, N images in a set, C channels, H x W pixels,
S output side, D width of a vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class View:
    """One augmented view of a batch of images."""

    image: Tensor
    """[B,C,S,S] float32."""
    box: Tensor | None
    """[B,4] x0 y0 x1 y1 of the crop in [0,1] of the source image; None after an affine, or not asked for."""
    flipped: Tensor
    """[B] bool: mirrored left to right after the crop."""


@dataclass(frozen=True)
class StepOutput:
    """What one forward pass of a learner yields; all but the loss is detached."""

    loss: Tensor
    """Scalar, with gradient."""
    projection: Tensor
    """[2B,D] online projections of both views, the first view's first; of pixel learners, of all places
    of both maps [2 h w B,D]."""
    target: Tensor
    """Target projections, of the same shape and in the same order."""
    representation: Tensor
    """[2B,D] what the online backbone makes of both views, in the same order; of this process's images."""


@dataclass(frozen=True)
class Features:
    """Vectors of a whole image set, in the set's order."""

    vectors: Tensor
    """[N,D] float32 on the CPU."""
    labels: Tensor | None
    """[N] int64, or None where the images have no labels."""
    keys: Sequence[str]
    """An id or a path for each image."""


class Masks(Protocol):
    """The class of every pixel of the images of a set, read one mask at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor:
        """Return mask `index` as uint8 class numbers [H,W], of its image's size."""


class Picture(Protocol):
    """An image of known size whose pixels may be yet to be read."""

    @property
    def height(self) -> int:
        """H in pixels."""

    @property
    def width(self) -> int:
        """W in pixels."""

    def reduction(self, side: int, wanted: int) -> int:
        """Return by how much the image may be read smaller where `side` of its pixels become `wanted`."""

    def pixels(self, reduction: int = 1) -> Tensor:
        """Return uint8 [C,H/r,W/r], sides rounded up, for a `reduction` r that the method has given, or 1.

        Raises:
            UserError: the image cannot be read.
        """


class ImageSet(Protocol):
    """Images in a fixed order, read one at a time."""

    @property
    def keys(self) -> Sequence[str]:
        """An id or a path for each image."""

    @property
    def labels(self) -> Tensor | None:
        """[N] int64 in 0..classes-1, or None."""

    @property
    def class_names(self) -> Sequence[str] | None:
        """The name of each label, or None where there are no labels."""

    @property
    def masks(self) -> Masks | None:
        """The class of every pixel, or None."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index` as uint8 [C,H,W]; H and W may differ from image to image."""
