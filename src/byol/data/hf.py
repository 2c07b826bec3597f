"""Hugging Face datasets: Hub names, local folders and Parquet files."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from byol.data.columns import find_columns, find_mask_column, read_labels
from byol.data.decode import EncodedPicture, check_channels, exif_orientation, unreadable
from byol.data.labels import checked_names
from byol.data.masks import EncodedMasks
from byol.data.opened import Source
from byol.errors import UserError, one_line
from byol.types import Masks

# The words that the Hub too reads as splits in file names, and the one that pretraining adds.
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "unlabeled": "unlabeled",
    "unlabelled": "unlabeled",
}


class EncodedImages:
    """A column of encoded images {bytes, path}, decoded when they are read."""

    def __init__(
        self,
        column: Any,
        split: str,
        channels: int = 3,
        labels: Tensor | None = None,
        class_names: Sequence[str] | None = None,
        masks: Any = None,
    ) -> None:
        """Read `datasets.Dataset`s of one column that yields {bytes, path}; keys are "split/0", ..."""
        self.column = column
        self.name = column.column_names[0]
        self.channels = channels
        self.keys: Sequence[str] = [f"{split}/{index}" for index in range(len(column))]
        self.labels = labels
        self.class_names = None if labels is None else class_names
        self.masks: Masks | None = None
        if masks is not None:
            self.masks = EncodedMasks(masks, self.keys, self._orientation)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Tensor:
        return self.picture(index).pixels()

    def picture(self, index: int) -> EncodedPicture:
        """Return image `index` with its header read."""
        return EncodedPicture(self._encoded(index), self.channels, self.keys[index])

    def _orientation(self, index: int) -> int:
        return exif_orientation(self._encoded(index), self.keys[index])

    def _encoded(self, index: int) -> bytes | Path:
        encoded = self.column[index][self.name] or {}
        source: bytes | None = encoded.get("bytes")
        if source is None and not encoded.get("path"):
            raise unreadable(self.keys[index], ValueError("the row is empty"))
        return Path(encoded["path"]) if source is None else source


def open_hf(name: str, channels: int = 3, data_dir: str = "./datasets") -> Source:
    """Open a Hub dataset, a local folder (Parquet, Arrow, `save_to_disk`, images) or one Parquet file.

    The splits train, test and unlabeled are read, and of data with masks validation; any other is left
    alone. In a local folder the first such word in a file's name, else in its folders' names, says its
    split; without one it is train, and a single file always is. The columns are found by
    `columns.find_columns` and `columns.find_mask_column`. What `datasets` caches goes to
    `data_dir`/huggingface; local data are read without network.

    Raises:
        UserError: nothing readable is there, there is no train split, or the columns are not clear.
        UnreadableImage: on reading.
    """
    check_channels(channels)
    splits = _load(name, Path(data_dir).expanduser() / "huggingface")
    if not len(splits.get("train", ())):
        raise UserError(f"hf:{name} has no images in a train split, only {', '.join(map(str, splits))}")
    parts = _image_sets(name, splits, channels)
    return Source(
        f"hf:{name}",
        parts["train"],
        parts.get("test"),
        parts.get("unlabeled"),
        channels,
        validation=parts.get("validation"),
    )


def _image_sets(name: str, splits: dict[str, Any], channels: int) -> dict[str, EncodedImages]:
    image, label, names = find_columns(name, splits["train"].features)
    mask = find_mask_column(splits["train"].features, image)
    wanted = ("train", "test", "unlabeled", *(() if mask is None else ("validation",)))
    used = [split for split in wanted if len(splits.get(split, ()))]
    labels = {split: read_labels(splits[split], label) for split in used}
    labels["unlabeled"] = None
    if names is None and label is not None:  # numbered classes: as many as the split that has most
        found = (checked_names(part, None) for part in labels.values() if part is not None)
        names = max(found, key=len, default=None)
    return {
        split: EncodedImages(
            _encoded(name, splits[split], image),
            split,
            channels,
            labels[split],
            names,
            None
            if mask is None or mask not in splits[split].features
            else _encoded(name, splits[split], mask),
        )
        for split in used
    }


def _encoded(name: str, dataset: Any, image: str) -> Any:
    """Return a column of images or masks alone, yielding encoded bytes rather than PIL images."""
    from datasets import Image

    if image not in dataset.features:
        raise UserError(f"a split of hf:{name} lacks the image column '{image}' that train has")
    column = dataset.select_columns([image])
    is_image = isinstance(dataset.features[image], Image)
    return column.cast_column(image, Image(decode=False)) if is_image else column


def _load(name: str, cache: Path) -> dict[str, Any]:
    import datasets

    path = Path(name).expanduser()
    if path.is_file() and path.suffix.lower() != ".parquet":
        raise UserError(f"hf:{name} is a file but not Parquet: give a .parquet file, a folder or a Hub name")
    try:
        if not path.exists():
            with _hub_files_in(cache):
                return dict(datasets.load_dataset(name, cache_dir=str(cache)))
        with _quietly():
            return _local(path, cache)
    # The library raises its own errors, pyarrow's, the Hub client's and plain ones.
    except Exception as error:
        where = "" if path.exists() else ", which is no local path; as a Hub name it needs the network"
        raise UserError(f"cannot read hf:{name}{where}: {one_line(error)}") from error


def _local(path: Path, cache: Path) -> dict[str, Any]:
    import datasets

    if any((path / marker).exists() for marker in ("dataset_dict.json", "state.json")):
        saved = datasets.load_from_disk(str(path))
        return dict(saved) if isinstance(saved, dict) else {"train": saved}
    for kind in ("parquet", "arrow"):
        files = _files_by_split(path, kind)
        if files:
            return dict(datasets.load_dataset(kind, data_files=files, cache_dir=str(cache)))
    return dict(datasets.load_dataset("imagefolder", data_dir=str(path), cache_dir=str(cache)))


def _files_by_split(path: Path, suffix: str) -> dict[str, list[str]]:
    if path.is_file():
        return {"train": [str(path)]}
    files: dict[str, list[str]] = {}
    for file in sorted(path.rglob(f"*.{suffix}")):
        below = file.relative_to(path)
        if not any(part.startswith(".") for part in below.parts):
            files.setdefault(_split_of(below), []).append(str(file))
    return files


def _split_of(file: Path) -> str:
    for part in (file.stem, *reversed(file.parts[:-1])):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_WORDS:
                return _SPLIT_WORDS[word]
    return "train"


@contextmanager
def _quietly() -> Iterator[None]:
    """Show no progress bars: local files are read in a moment."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _hub_files_in(cache: Path) -> Iterator[None]:
    """Download Hub files below `cache`: `load_dataset` takes a folder for its tables, none for these."""
    from huggingface_hub import constants

    before = constants.HF_HUB_CACHE
    constants.HF_HUB_CACHE = str(cache / "hub")
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = before
