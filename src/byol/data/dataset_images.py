"""Any torch Dataset of images, read as an image set."""

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data import Subset as TorchSubset

from byol.data.channels import with_channels
from byol.data.decode import decode, unreadable
from byol.data.labels import checked_labels, checked_names
from byol.errors import UserError
from byol.types import Masks

log = logging.getLogger(__name__)
_MANY = 1000
"""Samples that take a while to read: who waits should know for what."""


class DatasetImages:
    """A torch Dataset that yields images or (image, label, ...) tuples.

    An image may be a PIL image, a uint8 tensor [C,H,W], or a float tensor [C,H,W] in [0,1]. Labels are
    the second entries where they are whole numbers from 0 up; a dataset's own `targets` or `labels`
    are believed where they agree with its first and last samples, otherwise every sample is read once.
    """

    masks: Masks | None = None

    def __init__(self, dataset: Dataset[Any], channels: int) -> None:
        """Wrap a dataset with a length; images come out with `channels` channels.

        Raises:
            UserError: the dataset has no length or is empty.
        """
        require_map_style(dataset)
        self.dataset = dataset
        self.channels = channels
        self.keys: Sequence[str] = tuple(map(str, range(len(self))))

    @cached_property
    def labels(self) -> Tensor | None:
        """[N] int64, or None; found on first use."""
        stated = _stated_labels(self.dataset)
        ends = (0, len(self) - 1)
        if stated is None or any(int(stated[end]) != self._label(end) for end in ends):
            stated = self._read_labels()
        if stated is None or int(stated.min()) < 0:  # -1 is how datasets mark an image without a label
            return None
        return checked_labels(stated, len(self))

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """The dataset's `classes`, else the class numbers; None without labels."""
        if self.labels is None:
            return None
        names = _class_names(self.dataset)
        fits = names is not None and len(names) > int(self.labels.max())
        return checked_names(self.labels, names if fits else None)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # a Dataset need not have one; this one does

    def __getitem__(self, index: int) -> Tensor:
        image = sample_image(self._sample(index))
        if isinstance(image, Image.Image):
            return decode(image, self.channels, self.keys[index])
        return with_channels(_bytes(image, self.keys[index])[None], self.channels)[0]

    def _sample(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except OSError as error:  # what opening a broken or missing image file raises
            raise unreadable(self.keys[index], error) from error

    def _label(self, index: int) -> int | None:
        sample = self._sample(index)
        if not isinstance(sample, (tuple, list)) or len(sample) < 2:
            return None
        try:
            label = np.asarray(sample[1])
        except (TypeError, ValueError):
            return None
        return int(label) if label.ndim == 0 and label.dtype.kind in "iu" else None

    def _read_labels(self) -> Tensor | None:
        if self._label(0) is None:
            return None
        if len(self) > _MANY:
            text = "reading all %d samples of %s for labels: it has no `targets` or `labels` that tell them"
            log.warning(text, len(self), type(self.dataset).__name__)
        labels: list[int] = []
        for index in range(len(self)):
            label = self._label(index)
            if label is None:
                return None
            labels.append(label)
        return torch.tensor(labels)


def require_map_style(dataset: Any) -> None:
    """Raise UserError unless a dataset has a length and items."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise UserError(f"{type(dataset).__name__} has no length or no items: pass a map-style Dataset")
    if len(dataset) == 0:
        raise UserError(f"{type(dataset).__name__} holds no images")


def natural_channels(dataset: Dataset[Any]) -> int:
    """Return the channels of a dataset's first image: a tensor's own, 1 for grey PIL images, else 3."""
    image = sample_image(DatasetImages(dataset, 3)._sample(0))
    if isinstance(image, Image.Image):
        return 1 if image.mode[0] in "1LIF" and not image.mode.startswith("LAB") else 3
    return _bytes(image, "0").shape[0]


def sample_image(sample: Any) -> Any:
    """Return the image of a dataset's sample, or the images of a loader's batch."""
    return sample[0] if isinstance(sample, (tuple, list)) else sample


def _bytes(image: Any, key: str) -> Tensor:
    """Return a uint8 or [0,1] float tensor as uint8 [C,H,W]."""
    if not isinstance(image, Tensor) or image.dim() != 3:
        raise UserError(
            f"image {key} of the dataset is {_described(image)}; "
            "it must be a PIL image or a tensor [C,H,W], alone or first in a tuple"
        )
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point() or not (image.min() >= 0 and image.max() <= 1):
        raise UserError(
            f"image {key} of the dataset is {_described(image)}; "
            "a tensor must be uint8 or float within [0,1]: "
            "drop normalisation from the dataset's transform, the views normalise"
        )
    return (image * 255).round().to(torch.uint8)


def _described(image: Any) -> str:
    if not isinstance(image, Tensor):
        return f"a {type(image).__name__}"
    span = f" from {image.min():.3g} to {image.max():.3g}" if image.numel() else ""
    return f"a {str(image.dtype).removeprefix('torch.')} tensor {list(image.shape)}{span}"


def _stated_labels(dataset: Any) -> Tensor | None:
    if isinstance(dataset, TorchSubset):
        labels = _stated_labels(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    for name in ("targets", "labels"):
        try:
            labels = torch.as_tensor(getattr(dataset, name, None))
        except (TypeError, ValueError, RuntimeError):
            continue
        if tuple(labels.shape) == (len(dataset),) and not labels.is_floating_point():
            return labels.to(torch.int64)
    return None


def _class_names(dataset: Any) -> Sequence[str] | None:
    if isinstance(dataset, TorchSubset):
        return _class_names(dataset.dataset)
    names = getattr(dataset, "classes", None)
    return names if isinstance(names, (list, tuple)) else None
