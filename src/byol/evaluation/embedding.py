"""`byol embed`: the vectors of a whole split, in the order of its images, as a file."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byol.config import EmbedConfig
from byol.data.decoders import decoder_count
from byol.data.folder import unread_kinds
from byol.data.opened import skip_unreadable
from byol.data.source import Source
from byol.errors import UserError, listed
from byol.evaluation.features import kept
from byol.evaluation.opening import command_settings, open_with_data
from byol.evaluation.target import Data, Target, check_channels, chosen_device
from byol.rundir import written_whole
from byol.types import Features, ImageSet
from byol.weights import write_safetensors

UNLABELLED = -1
"""In place of a label in .safetensors files, where some images of "all" have none."""


def embed(
    target: str | Path,
    *,
    out: str | Path,
    data: Data | None = None,
    net: nn.Module | None = None,
    **settings: Any,
) -> Path:
    """Write the vectors of a split to one file.

    Args:
        target: a run directory, a bundle folder, or a file with a state dict.
        out: .parquet (columns id, label where known, vector), .npy (vectors), or .safetensors
            (vectors, labels where known).
        data: as for `byol.evaluate`; None: the run's own.
        net: an untrained copy of the network, where it was the user's own.
        **settings: the flags of `byol embed` with underscores: split, device, ...

    Returns:
        The path of the file. An older file there is replaced once the new one is complete.

    Raises:
        UserError: something is not as it should be. Nothing is written to `out` then.
    """
    config = command_settings(EmbedConfig, target, data, {**settings, "out": out})
    file = Path(out)
    if file.suffix not in WRITERS:
        raise UserError(f"cannot write '{out}': the name must end in {', '.join(WRITERS)}")
    device = chosen_device(config.device)
    opened, source = open_with_data(config, data, net)
    if config.on_error == "skip":
        source = _with_readable_test(source)
    if source.skipped:
        print(f"left out what cannot be read: {listed(source.skipped)}", file=sys.stderr)
    if source.passed_over:
        print(f"left alone {unread_kinds(source.passed_over)}", file=sys.stderr)
    decoders = decoder_count(config.num_workers)
    parts = {
        name: _features(opened, images, source.name, name, device, decoders)
        for name, images in _chosen(source, config.split)
    }
    _write(file, _joined(parts) if config.split == "all" else parts[config.split])
    return file


def _features(
    target: Target, images: ImageSet, data: str, split: str, device: torch.device, num_workers: int
) -> Features:
    check_channels(target, images, f"{data} ({split})")
    return kept(
        target.cache,
        target.backbone,
        target.preprocess,
        images,
        data,
        split,
        device=device,
        num_workers=num_workers,
        shown_as=f"{split} images",
    )


def _with_readable_test(source: Source) -> Source:
    """Leave unreadable images out of the test split, too: opening keeps it whole, for numbers about it."""
    if source.test is None:
        return source
    test, skipped = skip_unreadable(source.test, threads=1)
    return replace(source, test=test, skipped=(*source.skipped, *skipped))


def _chosen(source: Source, split: str) -> list[tuple[str, ImageSet]]:
    splits = {"train": source.train, "test": source.test, "unlabeled": source.unlabeled}
    present = {name: images for name, images in splits.items() if images is not None}
    if split == "all":
        return list(present.items())
    if split not in present:
        raise UserError(f"{source.name} has no split '{split}'; it has {', '.join(present)}")
    return [(split, present[split])]


def _joined(parts: Mapping[str, Features]) -> Features:
    """Lay the features of splits end to end, with the split before each key; images without a label get
    `UNLABELLED` where others have one."""
    vectors = torch.cat([part.vectors for part in parts.values()])  # [N,D]
    keys = [f"{split}/{key}" for split, part in parts.items() for key in part.keys]
    if all(part.labels is None for part in parts.values()):
        return Features(vectors, None, keys)
    labels = [
        torch.full((len(part.vectors),), UNLABELLED) if part.labels is None else part.labels
        for part in parts.values()
    ]
    return Features(vectors, torch.cat(labels), keys)


def _write(file: Path, features: Features) -> None:
    """Write the whole file, or leave what was there."""
    with written_whole(file) as temporary:
        WRITERS[file.suffix](temporary, features)


def _write_parquet(file: Path, features: Features) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = features.vectors
    # A file's name need not be UTF-8, and Parquet takes nothing else.
    ids = [key.encode(errors="backslashreplace").decode() for key in features.keys]
    columns = {"id": pa.array(ids, pa.string())}
    if features.labels is not None:
        known: Tensor = features.labels != UNLABELLED
        columns["label"] = pa.array(features.labels.numpy(), pa.int64(), mask=~known.numpy())
    flat = pa.array(vectors.reshape(-1).numpy(), pa.float32())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    pq.write_table(pa.table(columns), file)


def _write_npy(file: Path, features: Features) -> None:
    import numpy as np

    with file.open("wb") as opened:  # given a name, numpy would add its suffix
        np.save(opened, features.vectors.numpy())


def _write_safetensors(file: Path, features: Features) -> None:
    tensors = {"vectors": features.vectors.contiguous()}
    if features.labels is not None:
        tensors["labels"] = features.labels
    write_safetensors(file, tensors)


WRITERS: dict[str, Callable[[Path, Features], None]] = {
    ".parquet": _write_parquet,
    ".npy": _write_npy,
    ".safetensors": _write_safetensors,
}
