"""How well a class is given to every pixel: intersection over union, and accuracy, of a whole split."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from byol.data.masks import PixelClasses
from byol.types import Masks


def pixel_confusion(
    predictions: Iterable[Tensor], masks: Masks | Sequence[Tensor], classes: PixelClasses
) -> Tensor:
    """Count pixels by true class (row) and predicted class (column); void ones do not count.

    Args:
        predictions: class numbers of each image, in any kind of integer.
        masks: the true ones, each of the shape of its prediction.
        classes: K of them.

    Returns:
        [K,K] int64.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    size = len(classes.names)
    matrix = torch.zeros(size, size, dtype=torch.int64)
    for index, prediction in enumerate(predictions):
        # Masks are checked where they are read.
        matrix += multiclass_confusion_matrix(
            prediction.long(), masks[index].long(), size, ignore_index=classes.void, validate_args=False
        )
    return matrix


def class_ious(confusion: Tensor) -> Tensor:
    """Return the intersection over union of each class, 0-1, of a matrix [K,K] of counts.

    Returns:
        [K] float64; nan where a class occurs neither in truth nor in prediction.
    """
    right = confusion.diagonal().double()
    return right / (confusion.sum(dim=0) + confusion.sum(dim=1) - right)


def mean_iou(confusion: Tensor) -> float:
    """Return the mean of `class_ious` over the classes that occur in the split, in truth or prediction.

    The counts are of the whole split, as for Pascal VOC and Cityscapes: it is not a mean over images.
    """
    return float(class_ious(confusion).nanmean())


def pixel_accuracy(confusion: Tensor) -> float:
    """Return the share of pixels, 0-1, that get their class; void ones do not count."""
    return float(confusion.diagonal().sum().double() / confusion.sum())
