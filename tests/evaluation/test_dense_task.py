import pytest
import torch

from byol.data.images import Subset, TensorImages
from byol.data.source import Source
from byol.data.splits import holdout_split
from byol.errors import UserError
from byol.evaluation.dense_task import divide_dense, masks_of
from tests.scenes import VOID, scenes


def test_choices_are_made_on_the_validation_split_else_on_the_hold_out() -> None:
    train, validation, test = scenes(20), scenes(4, seed=1), scenes(3, seed=2)
    task = divide_dense(Source("x", train, test, validation=validation), 0.2)
    assert (len(task.train), len(task.choice), len(task.scored)) == (20, 4, 3)
    assert (task.chosen_on, task.split) == ("validation", "test")
    task = divide_dense(Source("x", train, test), 0.2)
    rest, held = holdout_split(20, None, 0.2, 0)
    assert [*task.train.keys] == [str(index) for index in rest.tolist()]
    assert [*task.choice.keys] == [str(index) for index in held.tolist()]
    assert (task.chosen_on, task.split) == ("holdout", "test")
    assert torch.equal(masks_of(task.choice)[1], train.masks[held[1]])
    task = divide_dense(Source("x", train), 0.2)
    assert [*task.scored.keys] == [str(index) for index in held.tolist()]
    assert (len(task.train), len(task.choice), task.split) == (14, 2, "holdout")


def test_classes_are_the_numbers_in_train_unless_they_are_known_or_given() -> None:
    source = Source("hf:mine", scenes(10), scenes(3, seed=1))
    assert divide_dense(source, 0.1).classes.names == ("0", "1", "2")
    assert divide_dense(source, 0.1).classes.void == VOID
    given = divide_dense(source, 0.1, ("ground", "red", "blue", "none"), 254 + 1)
    assert given.classes.names == ("ground", "red", "blue", "none")
    marked = scenes(10)
    marked.masks[marked.masks == VOID] = 11
    known = divide_dense(Source("hf:my/camvid", marked, marked), 0.1).classes
    assert (known.names[8], known.void) == ("car", 11)


def with_mask(images: TensorImages, index: int, mask: torch.Tensor) -> TensorImages:
    masks = list(images.masks)
    masks[index] = mask
    return TensorImages(images.images, masks=masks)


def test_what_does_not_fit_is_told_before_anything_is_measured() -> None:
    train, test = scenes(10), scenes(4, seed=1)
    plain = TensorImages(train.images)
    with pytest.raises(UserError, match=r"x has no masks: segmentation needs an image column called mask"):
        divide_dense(Source("x", plain, test), 0.1)
    small = with_mask(test, 2, torch.zeros(24, 30, dtype=torch.uint8))
    with pytest.raises(UserError, match="image '2' is 32x24 pixels, but its mask 30x24"):
        divide_dense(Source("x", train, small), 0.1)
    wrong = with_mask(test, 1, torch.full((24, 32), 7, dtype=torch.uint8))
    with pytest.raises(
        UserError, match=r"mask of image '1' holds 7, .* none of the 3 classes 0\.\.2 and not void"
    ):
        divide_dense(Source("x", train, wrong), 0.1)
    divide_dense(Source("x", train, wrong), 0.1, tuple("abcdefgh"))
    empty = TensorImages(train.images, masks=torch.full((10, 24, 32), VOID, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"nothing but void \(255\)"):
        divide_dense(Source("x", empty, test), 0.1)
    with pytest.raises(UserError, match="nothing to score"):
        divide_dense(Source("x", train), 0.0)


def blank(count: int) -> TensorImages:
    part = scenes(count)
    part.masks[:] = VOID
    return part


def test_a_set_without_a_counted_pixel_is_refused() -> None:
    good = scenes(10)
    cases = [
        ("test masks of x", Source("x", good, blank(4))),
        ("validation masks of x", Source("x", good, good, validation=blank(4))),
        ("train masks of x", Source("x", blank(10), good, validation=good)),
    ]
    for name, source in cases:
        with pytest.raises(UserError, match=rf"the {name} hold nothing but void \(255\)"):
            divide_dense(source, 0.1, tuple("abc"))


def test_too_few_images_for_a_set_of_choice_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"of 5 train images none is left .*: add a validation split, or more"
    ):
        divide_dense(Source("x", scenes(5), scenes(4)), 0.1)
    with pytest.raises(UserError, match="of 3 train images none is left"):
        divide_dense(Source("x", scenes(4)), 0.25)
    assert len(divide_dense(Source("x", scenes(6), scenes(4)), 0.1).choice) == 1


def test_where_nothing_is_chosen_no_images_of_choice_are_needed_or_read() -> None:
    task = divide_dense(Source("x", scenes(5), scenes(4)), 0.1, chooses=False)
    assert (len(task.train), len(task.choice), len(task.scored)) == (5, 0, 4)
    divide_dense(Source("x", scenes(10), scenes(4), validation=blank(4)), 0.1, chooses=False)
    kept, all_read = (divide_dense(Source("x", scenes(20), scenes(4)), 0.1, chooses=c) for c in (False, True))
    assert [*kept.train.keys] == [*all_read.train.keys]
    with pytest.raises(UserError, match="nothing to score"):
        divide_dense(Source("x", scenes(5)), 0.0, chooses=False)


def test_images_stay_in_memory() -> None:
    big = TensorImages(torch.zeros(4, 3, 180, 240, dtype=torch.uint8), masks=torch.zeros(4, 180, 240).byte())
    task = divide_dense(Source("x", Subset(big, [0, 1, 2, 3]), big), 0.25)
    assert isinstance(task.train, TensorImages) and len(task.train) == 3
