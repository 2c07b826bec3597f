"""How well a class is given to every pixel: intersection over union, and accuracy, of a whole split."""

import torch
from torch import Tensor


class PixelConfusion:
    """Counts pixels by true class (row) and predicted class (column), image after image.

    Args:
        num_classes: K.
        void: the number of pixels that do not count.
    """

    def __init__(self, num_classes: int, void: int) -> None:
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.void = void

    def add(self, predictions: Tensor, masks: Tensor) -> None:
        """Count the pixels of predictions and masks of one shape: class numbers of any kind of integer."""
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        counts = multiclass_confusion_matrix(
            predictions.long(),
            masks.long(),
            len(self.matrix),
            ignore_index=self.void,
            validate_args=False,  # masks are checked when they are read
        )
        self.matrix += counts.cpu()


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
    """Return the share of pixels, 0-1, that get their class; void ones are not counted."""
    return float(confusion.diagonal().sum() / confusion.sum())
