"""Named sets that torchvision downloads, with the splits as published."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from byol.data.channels import with_channels
from byol.data.images import TensorImages
from byol.data.opened import Source
from byol.errors import UserError, one_line

Published = tuple[Tensor, Any, Sequence[str]]
"""Images uint8 [N,C,H,W], numbers of classes (None: unlabelled), names of classes."""
Load = Callable[[str, str], Published]
"""From the folder of downloads and a split to what is published."""
EMNIST_SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")


def open_torchvision(name: str, channels: int | None = None, data_dir: str = "./datasets") -> Source:
    """Return a set by its name in `TORCHVISION_SETS`, downloading it into `data_dir` if it is not there.

    Keys are "train/0", "train/1", ... Grey sets have one channel and colour sets three unless `channels`
    says otherwise: grey is repeated, colour becomes ITU-R 601 grey.

    Raises:
        UserError: the download fails, or the files are damaged.
    """
    from filelock import FileLock

    load, folder = TORCHVISION_SETS[name], Path(data_dir).expanduser()
    splits = ("train", "test", "unlabeled") if name == "stl10" else ("train", "test")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One process downloads, the others of the same machine then find the files.
        with FileLock(folder / f".{name.replace('/', '-')}.lock"):
            parts = {split: _named(split, *load(str(folder), split)) for split in splits}
    # No network, a checksum that differs, an archive cut short: each library raises its own.
    except Exception as error:
        raise UserError(
            f"cannot download or read {name}: {one_line(error)}; connect to the network and try "
            f"again, or put torchvision's files into '{folder}' (--data-dir)"
        ) from error
    channels = channels or parts["train"].images.shape[1]
    for part in parts.values():
        part.images = with_channels(part.images, channels)
    return Source(name, parts["train"], parts["test"], parts.get("unlabeled"), channels)


def _named(split: str, images: Tensor, labels: Any, class_names: Sequence[str]) -> TensorImages:
    keys = [f"{split}/{index}" for index in range(len(images))]
    return TensorImages(images, None if labels is None else torch.as_tensor(labels), class_names, keys)


def _cifar(class_name: str) -> Load:
    def load(data_dir: str, split: str) -> Published:
        from torchvision import datasets

        published = getattr(datasets, class_name)(data_dir, train=split == "train", download=True)
        images = torch.from_numpy(published.data).permute(0, 3, 1, 2).contiguous()  # [N,H,W,3] -> [N,3,H,W]
        return images, published.targets, published.classes

    return load


def _stl10(data_dir: str, split: str) -> Published:
    from torchvision.datasets import STL10

    published = STL10(data_dir, split=split, download=True)
    # Stays the transposed view that torchvision makes: a copy of the unlabeled images takes 2.8 GB more.
    images = torch.from_numpy(published.data)  # [N,3,96,96]
    return images, None if split == "unlabeled" else published.labels, published.classes


def _fashion_mnist(data_dir: str, split: str) -> Published:
    from torchvision.datasets import FashionMNIST

    published = FashionMNIST(data_dir, train=split == "train", download=True)
    return published.data.unsqueeze(1), published.targets, published.classes


def _emnist(variant: str) -> Load:
    def load(data_dir: str, split: str) -> Published:
        from torchvision.datasets import EMNIST

        first = 1 if variant == "letters" else 0  # letters are numbered from 1 and their class 0 is "N/A"
        published = EMNIST(data_dir, split=variant, train=split == "train", download=True)
        upright = published.data.transpose(1, 2).contiguous().unsqueeze(1)  # [N,W,H] -> [N,1,H,W]
        return upright, published.targets - first, published.classes[first:]

    return load


TORCHVISION_SETS: dict[str, Load] = {
    "cifar10": _cifar("CIFAR10"),
    "cifar100": _cifar("CIFAR100"),
    "stl10": _stl10,
    "fashion_mnist": _fashion_mnist,
    **{f"emnist/{variant}": _emnist(variant) for variant in EMNIST_SPLITS},
}
