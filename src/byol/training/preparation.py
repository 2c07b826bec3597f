"""The images of a run: opened, divided, and in memory where they fit."""

import hashlib
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from byol.config import PretrainConfig
from byol.data.decoders import decoder_count
from byol.data.folder import NAMES_ENCODED
from byol.data.images import Concatenation, Subset, in_memory, resident
from byol.data.source import open_source, resolved_spec
from byol.data.splits import HOLDOUT, holdout_split
from byol.errors import UserError
from byol.training.memory_limit import memory_limit
from byol.training.processes import launch_of
from byol.types import ImageSet

Data = str | Dataset[Any] | Tensor
LARGEST_SIDE = 256
"""In pixels, of images that stay in memory: decoding larger ones in time costs less than their bytes."""


@dataclass(frozen=True)
class PreparedData:
    """The images of a run."""

    name: str
    train: ImageSet
    """The labelled or unlabelled train split without the hold-out."""
    holdout: ImageSet
    pretraining: ImageSet
    """`train`, and the unlabelled images where the source has some."""
    images: Tensor | None
    """[N,C,H,W] uint8: `pretraining` in memory; None where it is streamed."""
    channels: int
    skipped: tuple[str, ...]
    """Names of unreadable images that were left out."""
    passed_over: tuple[str, ...] = ()
    """Names of images of kinds that are not read."""

    def identity(self) -> dict[str, Any]:
        """Return what tells these images from others by their names: resuming needs the same ones."""
        digest = hashlib.sha256("\n".join(self.pretraining.keys).encode(errors=NAMES_ENCODED)).hexdigest()
        return {"images": len(self.pretraining), "names": digest}


def prepare_data(data: Data, config: PretrainConfig) -> PreparedData:
    """Open the data, split off the hold-out, and load into memory what fits.

    Raises:
        UserError: anything the user can fix about the data.
    """
    limit = memory_limit(config)
    source = open_source(data, channels=config.channels, data_dir=config.data_dir, on_error=config.on_error)
    share = held_out(config, source.train) or 0.0
    train_indices, holdout_indices = holdout_split(len(source.train), source.train.labels, share)
    train = in_memory(Subset(source.train, train_indices), limit, LARGEST_SIDE)
    holdout = in_memory(Subset(source.train, holdout_indices), limit, LARGEST_SIDE)
    pretraining = train if source.unlabeled is None else Concatenation(train, source.unlabeled)
    name = resolved_spec(data) if isinstance(data, str) else source.name
    images = None if config.in_memory == "off" else resident(pretraining, limit, LARGEST_SIDE)
    if images is None and config.in_memory == "on":
        raise UserError(
            f"--in-memory on: the images of {name} are not of one size of at most {LARGEST_SIDE} pixels a "
            "side; --in-memory auto streams them"
        )
    left_out = source.skipped, source.passed_over
    return PreparedData(name, train, holdout, pretraining, images, source.channels, *left_out)


def held_out(config: PretrainConfig, images: ImageSet) -> float | None:
    """Return what to hold out; None where it was left open, and there is nothing to measure on it."""
    measurable = images.labels is not None or images.masks is not None
    return HOLDOUT if config.holdout is None and measurable else config.holdout


def worker_count(config: PretrainConfig) -> int:
    """Return how many processes decode images for each one that trains; a machine's cores are shared out."""
    return decoder_count(config.num_workers, launch_of(config).devices)
