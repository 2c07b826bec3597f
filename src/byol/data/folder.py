"""Folders of image files."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from byol.data.decode import EncodedPicture, check_channels, unreadable
from byol.data.images import Subset
from byol.data.opened import Source
from byol.errors import UserError, listed
from byol.types import ImageSet, Masks

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
UNREAD = (".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".dcm")
"""Of images, too, but not read: a folder of photographs may hold some, and its owner should know."""
NAMES_ENCODED = "surrogateescape"
"""How text is encoded that may hold names of files: not all are UTF-8, and this gives back their bytes."""
_SPLITS = {"train", "test", "val", "valid", "validation", "unlabeled"}


class FileImages:
    """Image files below one folder, decoded when they are read."""

    masks: Masks | None = None

    def __init__(
        self,
        root: Path,
        keys: Sequence[str],
        channels: int = 3,
        labels: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Read `root / key` for each key, as 1 or 3 channels."""
        self.root = root
        self.keys = keys
        self.channels = channels
        self.labels = labels
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Tensor:
        return self.picture(index).pixels()

    def picture(self, index: int) -> EncodedPicture:
        """Return image `index` with its header read."""
        return EncodedPicture(self.root / self.keys[index], self.channels, self.keys[index])

    def stamp(self, index: int) -> str:
        """Return size and time of change of a file."""
        try:
            status = (self.root / self.keys[index]).stat()
        except OSError as error:
            raise unreadable(self.keys[index], error) from error
        return f"{status.st_size} {status.st_mtime_ns}"


def file_stamps(image_set: ImageSet, rows: Tensor) -> list[str]:
    """Return size and time of change of the files `rows` [B], by which a changed file is known; of sets that
    are no files nothing."""
    if isinstance(image_set, Subset):
        return file_stamps(image_set.image_set, image_set.indices[rows])
    if not isinstance(image_set, FileImages):
        return []
    return [image_set.stamp(row) for row in rows.tolist()]


def open_folder(path: str | Path, channels: int = 3) -> Source:
    """Open a folder of images (jpg jpeg png webp bmp tif tiff, any case; hidden files are ignored).

    1. PATH/train/ exists: it is the train split, PATH/test/ (if any) the test split, PATH/unlabeled/ (if
       any) more images to pretrain on, and everything beside them is ignored. Exception: where train/ holds
       images directly and is joined by no test/ but by folders that are no usual split, "train" is taken
       for a class (vehicles, say).
    2. Otherwise all images are train, and there is no test.

    A split is labelled where every image lies at least one folder down and there are two or more top
    folders: these are the classes, in sorted order. Anything else is unlabelled. Keys are paths
    relative to PATH with forward slashes, sorted.

    Raises:
        UserError: PATH is missing, is a file or holds no images, or train and test differ in classes.
        UnreadableImage: on reading.
    """
    check_channels(channels)
    root = _existing(Path(path).expanduser())
    files = sorted(_images_below(root))
    keys = [file for file in files if file.lower().endswith(SUFFIXES)]
    passed_over = tuple(file for file in files if file.lower().endswith(UNREAD))
    if not keys:
        kinds = " ".join(suffix[1:] for suffix in SUFFIXES)
        but = f", but {unread_kinds(passed_over)}" if passed_over else ""
        raise UserError(f"folder '{path}' holds no images ({kinds}), nor do those in it{but}")
    return replace(_source(root, keys, channels), passed_over=passed_over)


def unread_kinds(files: Sequence[str]) -> str:
    """Return a line about images of kinds that are not read: how many, of which, what to do."""
    kinds = sorted({Path(file).suffix.lower() for file in files})
    return f"{len(files)} of kinds that are not read ({' '.join(kinds)}): convert them to jpg or png"


def _existing(path: Path) -> Path:
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"'{path}' is a file, not a folder of images; for Parquet use hf:{path}")
    raise UserError(f"folder '{path}' does not exist")


def _images_below(folder: Path, prefix: str = "", above: tuple[Path, ...] = ()) -> Iterator[str]:
    real = folder.resolve()
    if real in above:  # a link back up would go round for ever
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _images_below(folder / entry.name, f"{prefix}{entry.name}/", (*above, real))
            elif entry.name.lower().endswith(SUFFIXES + UNREAD):
                yield prefix + entry.name


def _source(root: Path, keys: list[str], channels: int) -> Source:
    name = f"folder:{root}"
    folders = {key.split("/")[0] for key in keys if "/" in key}
    if not _has_splits(keys, folders):
        _refuse_test_alone(root, folders)
        return Source(name, _part(root, keys, 0, channels), channels=channels)
    train = _part(root, [key for key in keys if key.startswith("train/")], 1, channels)
    test = None
    if (root / "test").is_dir():
        test = _test(root, [key for key in keys if key.startswith("test/")], train, channels)
    more = [key for key in keys if key.startswith("unlabeled/")]
    return Source(name, train, test, FileImages(root, more, channels) if more else None, channels)


def _has_splits(keys: list[str], folders: set[str]) -> bool:
    flat = any(key.startswith("train/") and key.count("/") == 1 for key in keys)
    class_named_train = flat and "test" not in folders and not folders <= _SPLITS
    return "train" in folders and not class_named_train


def _refuse_test_alone(root: Path, folders: set[str]) -> None:
    spoken = {folder.lower() for folder in folders}
    if spoken & {"train", "test"} and spoken <= _SPLITS:
        raise UserError(
            f"folder '{root}' holds {listed(sorted(folders))} but no train/: "
            "name the training images' folder train"
        )


def _part(root: Path, keys: list[str], depth: int, channels: int) -> FileImages:
    """Read the files as one split whose classes, if any, are the folders `depth` below the root."""
    classes = sorted({key.split("/")[depth] for key in keys if key.count("/") > depth})
    if len(classes) < 2 or any(key.count("/") <= depth for key in keys):
        return FileImages(root, keys, channels)
    return FileImages(root, keys, channels, _labels(keys, depth, classes), classes)


def _labels(keys: list[str], depth: int, classes: Sequence[str]) -> Tensor:
    numbers = {name: number for number, name in enumerate(classes)}
    return torch.tensor([numbers[key.split("/")[depth]] for key in keys])


def _test(root: Path, keys: list[str], train: FileImages, channels: int) -> FileImages:
    if not keys:
        raise UserError(f"folder '{root / 'test'}' holds no images: fill it or remove it")
    if train.class_names is None:
        return FileImages(root, keys, channels)
    if any(key.count("/") < 2 for key in keys):
        raise UserError(
            f"images lie directly in '{root / 'test'}': put each in the folder of its class, as in train/"
        )
    _check_same({key.split("/")[1] for key in keys}, set(train.class_names), root)
    return FileImages(root, keys, channels, _labels(keys, 1, train.class_names), train.class_names)


def _check_same(test: set[str], train: set[str], root: Path) -> None:
    if test != train:
        only = [
            f"only in {part}/: {listed(sorted(names))}"
            for part, names in (("train", train - test), ("test", test - train))
        ]
        raise UserError(f"the class folders of train/ and test/ in '{root}' differ ({'; '.join(only)})")
