"""Image sets as batches: small ones straight from memory, others decoded image by image."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from byol.augment.evaluation import Preprocess
from byol.data.decoders import in_advance, largest_piece
from byol.data.images import in_memory, picture, rows_in_memory
from byol.data.workers import ignore_stop_signals, stacked, start_method
from byol.types import ImageSet, Picture

_PIECE = 128
"""Images that a worker makes at a time: of whole batches of large ones shared memory would hold few."""

_READY = 2
"""Pieces that it has ready."""

PerImage = Callable[[int, Picture], Tensor]
"""From an image's index and the image to a tensor [C,S,S]."""


def preprocessed_batches(
    image_set: ImageSet,
    preprocess: Preprocess,
    order: Tensor,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> Iterator[Tensor]:
    """Yield the images `order` [M] names, in that order, as float32 [B,C,S,S] on `device`.

    Args:
        image_set: any set; `byol.data.images.in_memory` says whether it fits in memory.
        preprocess: resize, cut and normalise.
        order: int64 indices into the set.
        batch_size: images in a batch; the last one may be smaller.
        device: where the batches go.
        num_workers: processes that decode images which are not in memory.

    Raises:
        UserError: an image cannot be read.
    """
    held, batches = in_memory(image_set), order.split(batch_size)
    if rows_in_memory(held, order[:1]) is not None:
        for rows in batches:
            images = rows_in_memory(held, rows)
            assert images is not None
            yield preprocess(images.to(device))
        return
    for batch in decoded_batches(held, partial(_preprocessed, preprocess), batches, num_workers):
        yield batch.to(device)


def decoded_batches(
    image_set: ImageSet, per_image: PerImage, order: Sequence[Tensor], num_workers: int
) -> Iterator[Tensor]:
    """Read images one by one, pass each through `per_image`, and yield them stacked [B,C,S,S].

    Args:
        image_set: any set.
        per_image: what happens to an image.
        order: the indices [B] of each batch.
        num_workers: processes that do it, at most; 0: this one.

    Raises:
        UserError: an image cannot be read.
    """
    size, workers, ready = _affordable(image_set, per_image, order, num_workers)
    pieces = [piece for rows in order for piece in rows.split(size)]
    loader: DataLoader[Tensor] = DataLoader(
        _Mapped(image_set, per_image),
        batch_sampler=[piece.tolist() for piece in pieces],
        num_workers=workers,
        multiprocessing_context=start_method(workers),
        prefetch_factor=ready if workers else None,
        collate_fn=stacked,
        worker_init_fn=ignore_stop_signals(),
        # Without one, starting to iterate draws a number from the global generator.
        generator=torch.Generator(),
    )
    decoded = iter(loader)
    for rows in order:
        yield _joined(decoded, len(rows))


def _joined(decoded: Iterator[Tensor], count: int) -> Tensor:
    """Return the next `count` images, each piece copied as it comes: it lies in shared memory until then."""
    piece, done = next(decoded), 0
    images = piece.new_empty(count, *piece.shape[1:])
    while True:
        images[done : done + len(piece)] = piece
        done += len(piece)
        if done == count:
            return images
        piece = next(decoded)


def _affordable(
    image_set: ImageSet, per_image: PerImage, order: Sequence[Tensor], num_workers: int
) -> tuple[int, int, int]:
    """Return how many images make a piece, at most, how many workers are of use, and how many pieces each
    has ready."""
    most = max(map(len, order), default=0)
    if not num_workers or not most:
        return _PIECE, 0, 1
    first = int(next(rows for rows in order if len(rows))[0])
    image_bytes = per_image(first, picture(image_set, first)).nbytes
    size = min(_PIECE, most, largest_piece(num_workers, image_bytes, _READY))
    pieces = sum(math.ceil(len(rows) / size) for rows in order)
    return size, *in_advance(min(num_workers, pieces), image_bytes * size, _READY)


class _Mapped(Dataset[Tensor]):
    """Images passed through a function."""

    def __init__(self, image_set: ImageSet, per_image: PerImage) -> None:
        self.image_set = image_set
        self.per_image = per_image

    def __len__(self) -> int:
        return len(self.image_set)

    def __getitem__(self, index: int) -> Tensor:
        return self.per_image(index, picture(self.image_set, index))


def _preprocessed(preprocess: Preprocess, index: int, image: Picture) -> Tensor:
    reduction = image.reduction(min(image.height, image.width), preprocess.short_side)
    return preprocess(image.pixels(reduction))
