"""What a set's labels must be: the numbers 0..classes-1, with a name for each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from byol.errors import UserError

_MOST_CLASSES = 1_000_000  # beyond that, labels are ids or hashes rather than class numbers


def checked_labels(labels: Tensor, count: int) -> Tensor:
    """Return labels as int64 [N].

    Raises:
        UserError: there is not one whole number from 0 up for each of `count` images.
    """
    if tuple(labels.shape) != (count,):
        raise UserError(f"{count} images need labels of shape [{count}], not {list(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise UserError(f"labels must be whole numbers 0..classes-1, not {labels.dtype}")
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < _MOST_CLASSES:
        raise UserError(
            f"labels must be the numbers 0..classes-1, not {int(labels.min())} to {int(labels.max())}: "
            "renumber them, or pass the images without labels"
        )
    return labels.to(torch.int64)


def checked_names(labels: Tensor, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return a name for each class: `names`, or the numbers themselves.

    Raises:
        UserError: a label has no name.
    """
    classes = int(labels.max()) + 1 if len(labels) else 0
    if names is None:
        return tuple(map(str, range(classes)))
    if len(names) < classes:
        raise UserError(f"labels reach {classes - 1}, but there are {len(names)} class names")
    return tuple(map(str, names))
