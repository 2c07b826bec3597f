"""Hold-outs and label draws: seeded, stratified, independent of any global random state.

Counts per class follow the largest-remainder method in whole numbers, so they add up exactly and no
rounding of floats decides. Which images are drawn is numpy's `default_rng`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol.errors import UserError

_Ints = NDArray[np.int64]
HOLDOUT = 0.1
"""Share of train that is held out where nothing else is asked for."""


def holdout_split(
    count: int, labels: Tensor | None, fraction: float = HOLDOUT, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Divide `count` images into train and hold-out; return the sorted int64 indices of each.

    With labels the hold-out is stratified, and every class keeps at least one image in train unless
    it has but one and the hold-out cannot do without.

    Args:
        count: How many images there are.
        labels: [count] class numbers, or None.
        fraction: A share in [0,1), or a whole number above 1 of images.
        seed: Decides which images, nothing else does.

    Raises:
        UserError: the hold-out is negative, not below `count`, or would empty a class of several images.
    """
    total = _holdout_size(count, fraction)
    if labels is not None and len(labels) != count:
        raise UserError(f"{count} images need as many labels, not {len(labels)}")
    classes, sizes = _classes(torch.zeros(count) if labels is None else labels)
    spared = sizes - 1
    if total > spared.sum():
        spared = np.where(sizes == 1, 1, spared)
    if total > spared.sum():
        raise UserError(
            f"a hold-out of {total} of {count} images empties classes of train: "
            f"hold out {spared.sum()} at most"
        )
    held = _drawn(
        classes, _apportioned(sizes, total, np.zeros_like(sizes), spared), np.random.default_rng(seed)
    )
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))


def draw_labels(
    labels: Tensor, amount: int | str, draw: int, seed: int = 0, class_names: Sequence[str] = ()
) -> Tensor:
    """Return the sorted int64 indices of a stratified draw of labelled images.

    Of one draw, the images of a smaller amount are among those of a larger one.

    Args:
        labels: [N] class numbers.
        amount: Images per class (5 or "5"), or a share of each class ("1%"), at least one per class.
        draw: The number of the draw, from 0; each is another sample.
        seed: Shared by all draws.
        class_names: Of the class numbers, for the message; without, the numbers are told.

    Raises:
        UserError: the amount is no such thing, or a class has fewer images.
    """
    classes, sizes = _classes(labels)
    counts = _label_counts(amount, labels, sizes, class_names)
    return torch.from_numpy(np.flatnonzero(_drawn(classes, counts, np.random.default_rng([seed, draw]))))


def _holdout_size(count: int, fraction: float) -> int:
    whole = fraction > 1
    if not fraction >= 0 or (whole and fraction % 1 != 0):
        raise UserError(f"the hold-out must be a share in [0,1) or a whole number of images, not {fraction}")
    total = int(fraction) if whole else round(fraction * count)
    if total > count:
        raise UserError(f"a hold-out of {total} images is larger than the {count} there are")
    if total == count and total:
        raise UserError(f"a hold-out of {fraction} leaves none of the {count} images to train on")
    return total


def _label_counts(amount: int | str, labels: Tensor, sizes: _Ints, class_names: Sequence[str]) -> _Ints:
    text = str(amount).strip()
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = 0.0
    if text.endswith("%") and 0 < number <= 100:
        total = round(number / 100 * int(sizes.sum()))
        return _apportioned(sizes, total, np.ones_like(sizes), sizes)
    if text.endswith("%") or number < 1 or number % 1 != 0:
        raise UserError(
            f"labels must be a number of images per class, such as 5, or a share, such as 1%, not '{amount}'"
        )
    if (sizes < number).any():
        poorest = int(sizes.argmin())
        number_of_class = int(torch.unique(labels)[poorest])
        name = class_names[number_of_class] if number_of_class < len(class_names) else number_of_class
        raise UserError(
            f"class {name} has {sizes[poorest]} images, fewer than the {int(number)} labels asked "
            "for; a share of each class, such as 10%, goes with classes of any size"
        )
    return np.full_like(sizes, int(number))


def _classes(labels: Tensor) -> tuple[_Ints, _Ints]:
    """Return each image's class as a number from 0 without gaps [N], and the size of each class [K]."""
    _, classes, sizes = np.unique(labels.cpu().numpy(), return_inverse=True, return_counts=True)
    return classes.astype(np.int64), sizes.astype(np.int64)


def _apportioned(sizes: _Ints, total: int, least: _Ints, most: _Ints) -> _Ints:
    """Divide `total` among classes in proportion to `sizes` [K], each between `least` and `most`.

    Where the `least` of some classes is above their share, the sum may exceed `total`.
    """
    whole = int(sizes.sum())
    counts = np.clip(sizes * total // max(whole, 1), least, most)
    while (missing := total - int(counts.sum())) > 0:
        owed = sizes * total - counts * whole  # in units of 1/whole image
        open_classes = np.flatnonzero(counts < most)
        first = open_classes[np.argsort(-owed[open_classes], kind="stable")][:missing]
        counts[first] += 1
    return counts


def _drawn(classes: _Ints, counts: _Ints, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Mark `counts[k]` images of each class k [N]: those that come first in one random order of all."""
    order = generator.permutation(len(classes))
    by_class = order[np.argsort(classes[order], kind="stable")]  # class after class, random within
    sizes = np.bincount(classes, minlength=len(counts))
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(classes)) - starts[classes[by_class]]
    chosen = np.zeros(len(classes), dtype=np.bool_)
    chosen[by_class] = rank < counts[classes[by_class]]
    return chosen
