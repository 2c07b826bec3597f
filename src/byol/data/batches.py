"""Which images make which batch: a plan derived from the seed, and two ways to follow it.

A position counts micro-batches from the start of training. Everything random about the batch at
a position follows from the seed and the position, so a loader can start anywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from byol.augment.draw import draw_geometric_pair
from byol.augment.presets import ViewSpec
from byol.data.crops import cut_out
from byol.data.images import picture
from byol.data.workers import ignore_stop_signals, stacked, start_method
from byol.errors import UserError
from byol.randomness import CROPS, derived_generator, epoch_order
from byol.types import ImageSet


class Batch(NamedTuple):
    """One process's micro-batch."""

    position: int
    """Number of micro-batches before this one."""
    images: Tensor
    """[B] indices of resident images, or [B,2,C,S,S] uint8: two crops of each image."""
    labels: Tensor | None = None
    """[B] int64, for those who learn from them beside the learner."""
    boxes: Tensor | None = None
    """[B,2,4] float32: where in its image each crop comes from, as `View.box`; None beside indices."""
    flipped: Tensor | None = None
    """[B,2] bool: the crop is mirrored; None beside indices."""


@dataclass(frozen=True)
class BatchPlan:
    """The order of the images, cut into micro-batches; an incomplete last batch is dropped.

    Raises:
        UserError: the data hold less than a batch, the batch does not divide evenly, or a
            micro-batch would have fewer than two images (batch normalisation needs two).
    """

    count: int
    """Number of images."""
    batch_size: int
    """Images per optimizer step over all processes and micro-batches."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    processes: int = 1
    rank: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size > self.count:
            raise UserError(
                f"batch size {self.batch_size} is larger than the data: {self.count} images to train on. "
                f"Give --batch-size {self.count} or less, or more images"
            )
        parts = self.accumulate * self.processes
        if self.batch_size % parts:
            raise UserError(
                f"batch size {self.batch_size} does not divide into {self.accumulate} micro-batches "
                f"on {self.processes} processes: make it a multiple of {parts}"
            )
        if self.batch_size // parts < 2:
            raise UserError(
                "a batch of one image has no batch statistics: give a --batch-size of at least "
                f"{2 * parts} ({self.accumulate} micro-batches, {self.processes} processes)"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return self.count // self.batch_size

    @property
    def micro_batch_size(self) -> int:
        """Images that one process sees at a time."""
        return self.batch_size // (self.accumulate * self.processes)

    def epoch_of(self, position: int) -> int:
        """Return the epoch (0-based) of a micro-batch."""
        return position // (self.steps_per_epoch * self.accumulate)

    def indices(self, position: int) -> Tensor:
        """Return this process's image indices [B] at a position."""
        step, micro = divmod(position, self.accumulate)
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        part = micro * self.processes + self.rank
        start = step_in_epoch * self.batch_size + part * self.micro_batch_size
        return epoch_order(self.count, self.seed, epoch)[start : start + self.micro_batch_size]


class ResidentBatches:
    """Batches of indices into images that stay on the training device, positions start to stop-1."""

    def __init__(self, plan: BatchPlan, start: int, stop: int) -> None:
        self.plan = plan
        self.positions = range(start, stop)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Batch]:
        for position in self.positions:
            yield Batch(position, _pinned(self.plan.indices(position)))


def _pinned(numbers: Tensor) -> Tensor:
    """Return numbers where a GPU fetches them by itself; from other memory the host may have to wait."""
    return numbers.pin_memory() if torch.cuda.is_available() else numbers


class LabelledBatches:
    """The batches of another iterable, with the labels of their images."""

    def __init__(self, batches: Any, labels: Tensor, plan: BatchPlan) -> None:
        """Take the labels [N] of all images of the plan."""
        self.batches = batches
        self.labels = labels
        self.plan = plan

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return map(self._labelled, self.batches)

    def _labelled(self, batch: Batch) -> Batch:
        return batch._replace(labels=_pinned(self.labels[self.plan.indices(batch.position)]))


class StartedBatches:
    """The batches of another iterable, begun: its workers run from here on.

    They are forks, and a fork may be born dead, with everybody waiting for it, where another thread enters
    Python at that moment (python/cpython#112275, mended in 3.11.10). Gloo's do when a collective ends. So
    this is made before a process meets the others.
    """

    def __init__(self, batches: Any) -> None:
        self._count = len(batches)
        self._looked_at: list[Batch] = []
        self._to_come: Iterator[Batch] = iter(batches)

    def __len__(self) -> int:
        return self._count

    def first(self) -> Batch:
        """Return the first batch, before any is taken; it stays the first."""
        self._looked_at = self._looked_at or [next(self._to_come)]
        return self._looked_at[0]

    def __iter__(self) -> Iterator[Batch]:
        """Yield them, once."""
        if self._looked_at:
            yield self._looked_at.pop()
        yield from self._to_come

    def close(self) -> None:
        """Let go of the workers, also where batches are left."""
        self._looked_at, self._to_come = [], iter(())


_Crops = tuple[int, Tensor, Tensor, Tensor]
"""An item of a loader: position, crops [2,C,S,S], their boxes [2,4], and whether they are mirrored [2]."""


class _TwoCrops(Dataset[_Crops]):
    """Decode an image once and cut two crops out of it; runs in the loader's workers.

    An item's crops follow from the seed, the epoch and the index, not from the worker.
    """

    def __init__(self, image_set: ImageSet, specs: tuple[ViewSpec, ViewSpec], size: int, seed: int) -> None:
        self.image_set = image_set
        self.specs = specs
        self.size = size
        self.seed = seed

    def __getitem__(self, item: tuple[int, int, int]) -> _Crops:
        position, epoch, index = item
        image = picture(self.image_set, index)
        generator = derived_generator(self.seed, CROPS, epoch, index)
        height, width = image.height, image.width
        draws = draw_geometric_pair(self.specs, height, width, generator)
        crops = cut_out(image, draws, self.specs, self.size)
        boxes = [box for draw in draws if (box := draw.source_box(height, width)) is not None]
        assert len(boxes) == 2  # `cut_out` takes no other draws
        return position, torch.stack(crops), torch.cat(boxes), torch.cat([draw.flip for draw in draws])


class _PlannedItems:
    """The items of each batch, in the plan's order: what the loader's workers are asked for."""

    def __init__(self, plan: BatchPlan, start: int, stop: int) -> None:
        self.plan = plan
        self.positions = range(start, stop)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        for position in self.positions:
            epoch = self.plan.epoch_of(position)
            yield [(position, epoch, index) for index in self.plan.indices(position).tolist()]


def streamed_batches(
    image_set: ImageSet,
    plan: BatchPlan,
    specs: tuple[ViewSpec, ViewSpec],
    size: int,
    start: int,
    stop: int,
    num_workers: int,
    ready: int = 4,
) -> DataLoader[Any]:
    """Return a loader of crops [B,2,C,S,S] whose content does not depend on the workers.

    Args:
        image_set: any set.
        plan: which images make which batch.
        specs: of the two views.
        size: S, of the views' crops.
        start: position of the first batch.
        stop: position behind the last batch.
        num_workers: processes that make batches; 0: this one.
        ready: batches that each of them makes in advance.
    """
    loader: DataLoader[Any] = DataLoader(
        _TwoCrops(image_set, specs, size, plan.seed),
        batch_sampler=_PlannedItems(plan, start, stop),
        num_workers=num_workers,
        multiprocessing_context=start_method(num_workers),
        collate_fn=_collate,
        worker_init_fn=ignore_stop_signals(),
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=ready if num_workers else None,
    )
    return loader


def _collate(items: list[_Crops]) -> Batch:
    positions, *tensors = zip(*items, strict=True)
    crops, boxes, flipped = map(stacked, tensors)  # [B,2,C,S,S], [B,2,4], [B,2]
    return Batch(positions[0], crops, boxes=boxes, flipped=flipped)
