"""What opening a data source yields, and the pass that leaves unreadable images out."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from byol.data.decode import UnreadableImage
from byol.data.images import Concatenation, Subset
from byol.errors import UserError
from byol.types import ImageSet

_BLOCK = 4096  # images handed to the threads at a time, so that a large set makes no queue of its own size


@dataclass(frozen=True)
class Source:
    """An opened data source: its splits and how many channels its images have."""

    name: str
    train: ImageSet
    test: ImageSet | None = None
    unlabeled: ImageSet | None = None
    channels: int = 3
    skipped: tuple[str, ...] = ()
    """Keys of train and unlabeled images left out because they cannot be read."""
    passed_over: tuple[str, ...] = ()
    """Files of a folder that are images of a kind that is not read."""
    validation: ImageSet | None = None
    """Of data with masks: what their settings are chosen on. Of others it is left alone."""

    @property
    def pretraining(self) -> ImageSet:
        """Train, followed by the unlabeled images where there are any: indices into train stay valid."""
        return self.train if self.unlabeled is None else Concatenation(self.train, self.unlabeled)


def skip_unreadable(image_set: ImageSet, threads: int | None = None) -> tuple[ImageSet, list[str]]:
    """Decode every image once; return the readable ones as a set, and the keys of the others.

    Args:
        image_set: The set itself comes back where all of it can be read.
        threads: None: one per core and a few more (PIL decodes outside the interpreter's lock);
            1 where the set cannot be read from several threads.

    Raises:
        UserError: not one image can be read.
    """
    flags = list(_readable(image_set, threads))
    if all(flags):
        return image_set, []
    if not any(flags):
        raise UserError(f"none of the {len(flags)} images can be read, the first being '{image_set.keys[0]}'")
    kept = [index for index, flag in enumerate(flags) if flag]
    return Subset(image_set, kept), [key for key, flag in zip(image_set.keys, flags, strict=True) if not flag]


def without_unreadable(source: Source, threads: int | None = None) -> Source:
    """Return the source with unreadable train and unlabeled images left out and listed in `skipped`.

    The test split stays whole: an evaluation that reads less than all of it would not be one.
    """
    train, skipped = skip_unreadable(source.train, threads)
    unlabeled = source.unlabeled
    if unlabeled is not None:
        unlabeled, more = skip_unreadable(unlabeled, threads)
        skipped = skipped + more
    return replace(source, train=train, unlabeled=unlabeled, skipped=tuple(skipped))


def _readable(image_set: ImageSet, threads: int | None) -> Iterator[bool]:
    def check(index: int) -> bool:
        try:
            image_set[index]
        except UnreadableImage:
            return False
        return True

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(image_set), _BLOCK):
            yield from pool.map(check, range(start, min(start + _BLOCK, len(image_set))))
