"""How each class of pixels fared, as JSON, and predictions beside the truth, as a picture."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from byol.data.masks import PixelClasses
from byol.evaluation.dense_task import masks_of
from byol.evaluation.pixel_metrics import class_ious, mean_iou, pixel_accuracy, pixel_confusion
from byol.evaluation.report import described, laid_out
from byol.evaluation.results import Result
from byol.evaluation.segmentation_picture import draw_segmentation
from byol.rundir import write_atomically
from byol.types import ImageSet

_SHOWN = 4


def write_segmentation_report(folder: Path, result: Result, images: ImageSet, classes: PixelClasses) -> None:
    """Write segmentation-HEAD.json and segmentation-HEAD.png, of four images, in place of older ones.

    Args:
        folder: is made where it is missing.
        result: with its predictions.
        images: what was scored, with masks.
        classes: of the masks.

    Raises:
        UserError: the folder cannot be written.
    """
    masks, predictions = masks_of(images), result.predictions
    assert predictions is not None
    report = segmentation_report(result, pixel_confusion(list(predictions), masks, classes), classes)
    write_atomically(folder / f"{result.name}.json", laid_out(report))
    places = torch.linspace(0, len(images) - 1, min(_SHOWN, len(images))).long().tolist()  # spread evenly
    rows = [(images[place], masks[place], predictions[place]) for place in places]
    title = f"{result.data}, {len(images):,} {result.split} images\n{result.name}, {result.features}"
    title += f": mIoU {report['miou']:.1%}, pixel accuracy {report['pixel_accuracy']:.1%}"
    draw_segmentation(folder / f"{result.name}.png", rows, classes, title)


def segmentation_report(result: Result, confusion: Tensor, classes: PixelClasses) -> dict[str, Any]:
    """Return plain values for JSON.

    Returns:
        What the result is of; images: how many were scored; miou and pixel_accuracy; classes: name, pixels
        (true ones) and iou of each, which is None where the class occurs neither in truth nor in
        prediction; confusion: a row for each true class, a column for each predicted one, counts of pixels.
    """
    ious = [None if iou != iou else iou for iou in class_ious(confusion).tolist()]
    columns = zip(classes.names, confusion.sum(dim=1).tolist(), ious, strict=True)
    return {
        **described(result),
        "images": len(result.predictions or ()),
        "miou": mean_iou(confusion),
        "pixel_accuracy": pixel_accuracy(confusion),
        "classes": [{"name": name, "pixels": pixels, "iou": iou} for name, pixels, iou in columns],
        "confusion": confusion.tolist(),
    }
