"""Images whose every pixel has a class: which are fitted, which decide about settings, which are scored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from byol.data.images import Subset, in_memory
from byol.data.masks import VOID, PixelClasses, known_pixel_classes
from byol.data.source import Source
from byol.data.splits import HOLDOUT, holdout_split
from byol.errors import UserError
from byol.evaluation.dense_features import LARGEST_SIDE
from byol.types import ImageSet, Masks


@dataclass(frozen=True)
class DenseTask:
    """A source with masks, divided; every mask is as large as its image and holds known classes."""

    data: str
    train: ImageSet
    """What is fitted."""
    choice: ImageSet
    """What settings are chosen on; may be empty where nothing chooses."""
    chosen_on: str
    """The name of `choice`: validation or holdout."""
    scored: ImageSet
    split: str
    """The name of `scored`: test or holdout."""
    classes: PixelClasses


def masks_of(images: ImageSet) -> Masks:
    """Return the masks of images that are known to have some."""
    assert images.masks is not None
    return images.masks


def divide_dense(
    source: Source,
    holdout: float,
    names: tuple[str, ...] | None = None,
    void: int | None = None,
    chooses: bool = True,
) -> DenseTask:
    """Divide a source with masks, and check all that are read.

    With masks in the test split, that is scored; without, the hold-out is. Settings are chosen on the
    validation split; where there is none, on the run's hold-out (10 % of train where the run kept none)
    or, where that is scored, on 10 % of the rest.

    Args:
        source: its train split has masks.
        holdout: what the run held out, as `holdout_split` takes it.
        names: of the classes; None: those of a well-known set, or one for each number in train.
        void: the number of pixels that do not count; None: of a well-known set, or 255.
        chooses: settings are chosen. Else the images for that are divided off all the same, so that a number
            does not depend on what else is asked for, but not read, and there may be none.

    Raises:
        UserError: there are no masks; one of the sets that are read is empty, or all of it is void; a mask
            and its image differ in size; a mask holds a number that is no class.
    """
    if source.train.masks is None:
        raise UserError(
            f"{source.name} has no masks: segmentation needs an image column called mask (or segmentation, "
            "annotation, label) beside the images, in Parquet files (--data hf:PATH)"
        )
    has_test = source.test is not None and source.test.masks is not None
    train, held = _divided(source.train, holdout if not has_test else 0)
    scored = source.test if has_test else held
    assert scored is not None
    chosen_on = "holdout"
    if source.validation is not None and source.validation.masks is not None:
        choice, chosen_on = source.validation, "validation"
    else:
        train, choice = _divided(train, (holdout or HOLDOUT) if has_test else HOLDOUT)
    _refuse_empty(source.name, train, choice if chooses else None, scored)
    classes = classes_in(source.name, (source.train,), names, void)
    split = "test" if has_test else "holdout"
    train = _checked(train, classes, f"train masks of {source.name}")
    if chooses:
        choice = _checked(choice, classes, f"{chosen_on} masks of {source.name}")
    scored = _checked(scored, classes, f"{split} masks of {source.name}")
    return DenseTask(source.name, train, choice, chosen_on, scored, split, classes)


def _checked(images: ImageSet, classes: PixelClasses, name: str) -> ImageSet:
    images = in_memory(images, largest_side=LARGEST_SIDE)
    check_masks(images, classes, name)
    return images


def _refuse_empty(data: str, train: ImageSet, choice: ImageSet | None, scored: ImageSet) -> None:
    if len(scored) == 0:
        raise UserError(
            f"{data} has no test split and nothing is held out of train: there is nothing to score "
            "(add a test split, or more images)"
        )
    if choice is not None and len(choice) == 0:
        raise UserError(
            f"{data} has no validation split, and of {len(train)} train images none is left to choose "
            "settings on: add a validation split, or more images"
        )


def _divided(images: ImageSet, holdout: float) -> tuple[ImageSet, ImageSet]:
    rest, held = holdout_split(len(images), images.labels, holdout, 0)
    return Subset(images, rest), Subset(images, held)


def classes_in(
    data: str, sets: Sequence[ImageSet], names: tuple[str, ...] | None = None, void: int | None = None
) -> PixelClasses:
    """Return the classes of masks: those asked for, else of a well-known set, else 0 to the largest number.

    Args:
        data: the source's name.
        sets: whose masks are looked through where the classes are not known.
        names: of the classes.
        void: the number of pixels that do not count; None: of a well-known set, or 255.

    Raises:
        UserError: the masks hold nothing but void.
    """
    known = known_pixel_classes(data)
    void = (VOID if known is None else known.void) if void is None else void
    names = known.names if names is None and known is not None else names
    if names is None:
        largest = -1
        for mask in (mask for images in sets for mask in _masks(images)):
            largest = max(largest, *mask[mask != void].unique().tolist(), -1)
        if largest < 0:
            raise UserError(f"the masks of {data} hold nothing but void ({void})")
        names = tuple(map(str, range(largest + 1)))
    return PixelClasses(names, void)


def _masks(images: ImageSet) -> Iterator[Tensor]:
    masks = masks_of(images)
    return (masks[index] for index in range(len(images)))


def check_masks(images: ImageSet, classes: PixelClasses, name: str) -> None:
    """Read all masks of a set, which `name` stands for.

    Raises:
        UserError: a mask cannot be read, is not as large as its image or holds a number that is no class;
            all pixels of the set are void.
    """
    has_pixels = False
    for index, mask in enumerate(_masks(images)):
        key, size = images.keys[index], images[index].shape[1:]
        if mask.shape != size:
            (h, w), (mask_h, mask_w) = size, mask.shape
            raise UserError(f"image '{key}' is {w}x{h} pixels, but its mask {mask_w}x{mask_h}")
        counted = mask[mask != classes.void]
        has_pixels = has_pixels or len(counted) > 0
        wrong = counted[counted >= len(classes.names)]
        if len(wrong):
            raise UserError(
                f"the mask of image '{key}' holds {int(wrong[0])}, which is none of the "
                f"{len(classes.names)} classes 0..{len(classes.names) - 1} and not void ({classes.void}): "
                "correct it, or give byol evaluate --classes and --void"
            )
    if not has_pixels:
        raise UserError(f"the {name} hold nothing but void ({classes.void}): they tell nothing")
