"""Which column of a table holds the images, and which the labels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from byol.data.labels import checked_labels
from byol.errors import UserError

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")
_MASK_NAMES = ("mask", "segmentation", "annotation", "label")


def find_columns(name: str, features: Any) -> tuple[str, str | None, Sequence[str] | None]:
    """Return the image column, the label column and the class names, the last two None where not found.

    Images: the column of type Image or, where there is none, of type struct {bytes, path}; among
    several the only one that is not called as masks are, else the one called image or img. Labels: the
    ClassLabel column, among several the one called label, labels or fine_label; else an integer column
    of such a name, whose classes have no names.
    Several ClassLabel columns of other names count as no labels.

    Args:
        name: What to call the data in an error.
        features: `datasets.Features`.

    Raises:
        UserError: there is no image column, or more than one and none called image or img.
    """
    label = _label_column(features)
    names = getattr(features[label], "names", None) if label is not None else None
    return _image_column(name, features), label, names


def find_mask_column(features: Any, image: str) -> str | None:
    """Return the column of masks: one of type Image, or struct {bytes, path}, that is called mask,
    segmentation, annotation or label (the first of these that there is), and is not the images'.
    """
    found = [column for column, feature in features.items() if _holds_images(feature) and column != image]
    return next((name for name in _MASK_NAMES if name in found), None)


def read_labels(dataset: Any, label: str | None) -> Tensor | None:
    """Return a split's labels [N] int64, or None where it lacks the column or some are null or negative."""
    if label is None or label not in dataset.features:
        return None
    column = dataset.with_format("arrow").select_columns([label])[:][label]
    if column.null_count:
        return None
    labels = torch.tensor(column.to_numpy())
    if len(labels) and int(labels.min()) < 0:  # the Hub's mark for a label that is withheld
        return None
    return checked_labels(labels, len(dataset))


def _image_column(name: str, features: Any) -> str:
    from datasets import Image

    typed = [column for column, feature in features.items() if isinstance(feature, Image)]
    found = typed or [column for column, feature in features.items() if _holds_images(feature)]
    likely = [column for column in found if column not in _MASK_NAMES] or found
    chosen = likely if len(likely) == 1 else [column for column in _IMAGE_NAMES if column in found][:1]
    if chosen:
        return chosen[0]
    if found:
        raise UserError(
            f"hf:{name} has several image columns ({', '.join(found)}): call the one to read 'image' or 'img'"
        )
    raise UserError(
        f"hf:{name} has no image column; a column must be of type Image or struct {{bytes, path}}, "
        f"not: {', '.join(f'{column} ({_type(feature)})' for column, feature in features.items())}"
    )


def _holds_images(feature: Any) -> bool:
    from datasets import Image

    return isinstance(feature, Image) or (isinstance(feature, dict) and {*feature} == {"bytes", "path"})


def _label_column(features: Any) -> str | None:
    from datasets import ClassLabel

    classes = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    if len(classes) == 1:
        return classes[0]
    whole = classes or [column for column, feature in features.items() if "int" in _type(feature)]
    return next((column for column in _LABEL_NAMES if column in whole), None)


def _type(feature: Any) -> str:
    return str(getattr(feature, "dtype", type(feature).__name__))
