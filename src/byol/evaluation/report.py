"""How each class fared: precision, recall, F1 and the confusion matrix, as JSON and as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from byol.evaluation.pictures import draw_confusion
from byol.evaluation.results import Result
from byol.rundir import write_atomically


def write_report(folder: Path, result: Result, truth: Tensor, class_names: Sequence[str]) -> None:
    """Write PROTOCOL.json and PROTOCOL.png in place of older ones.

    Args:
        folder: is made where it is missing.
        result: with its predictions.
        truth: [M] labels of what was scored.
        class_names: of the labels, in their order.

    Raises:
        UserError: the folder cannot be written.
    """
    report = class_report(result, truth, class_names)
    write_atomically(folder / f"{result.protocol}.json", laid_out(report))
    draw_confusion(folder / f"{result.protocol}.png", report)


def class_report(result: Result, truth: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """Return plain values for JSON.

    Returns:
        What the result is of (protocol, features, data, split, seed, epoch, settings); images: how
        many were scored; top1 and mean_per_class; classes: name, support, precision, recall and f1
        of each, as scikit-learn defines them (0 where there is nothing to divide by); confusion: a
        row for each true class, a column for each predicted one, counts of images.
    """
    assert isinstance(result.predictions, Tensor)
    matrix = confusion_matrix(truth, result.predictions, len(class_names))  # [K,K]
    right, support, given = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)  # [K]
    recall = _ratio(right, support)
    columns = (support, _ratio(right, given), recall, _ratio(2 * right, support + given))
    names = [*class_names, *map(str, range(len(class_names), len(matrix)))]
    keys = ("name", "support", "precision", "recall", "f1")
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    return {
        **described(result),
        "images": len(truth),
        "top1": float(right.sum().double() / len(truth)),
        "mean_per_class": float(recall[support > 0].mean()),
        "classes": [dict(zip(keys, row, strict=True)) for row in rows],
        "confusion": matrix.tolist(),
    }


def described(result: Result) -> dict[str, Any]:
    """Return what a report says of where its result comes from."""
    names = ("protocol", "features", "data", "split", "seed", "epoch", "settings")
    return {name: getattr(result, name) for name in names}


def confusion_matrix(truth: Tensor, predictions: Tensor, num_classes: int = 0) -> Tensor:
    """Count images by true class (row) and predicted class (column).

    Args:
        truth: [M] int64, at least one.
        predictions: [M] int64.
        num_classes: K at least; as many more as the labels need.

    Returns:
        [K,K] int64.
    """
    size = max(num_classes, 1 + int(truth.max()), 1 + int(predictions.max()))
    return torch.bincount(truth * size + predictions, minlength=size * size).view(size, size)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return float64 part / whole, 0 where whole is."""
    return part.double() / whole.clamp(min=1)


def laid_out(report: dict[str, Any]) -> str:
    """Write one class, and one row of the matrix, a line: a file to read and to compare."""
    entries = []
    for name, value in report.items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in value) + "\n  ]"
        entries.append(f'  "{name}": {text}')
    return "{\n" + ",\n".join(entries) + "\n}\n"
