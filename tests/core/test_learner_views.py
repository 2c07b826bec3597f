"""Where the learner's views come from: the preset, or the user's own functions."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from byol.core.learner import BYOL
from byol.errors import UserError

MakeLearner = Callable[..., BYOL]
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_copies_of_one_image_become_views_that_all_differ(kind: str, make_learner: MakeLearner) -> None:
    image = torch.rand(3, 32, 32)
    if kind == "uint8":
        image = (image * 255).to(torch.uint8)
    learner = make_learner(image_size=16)
    every = torch.cat(learner.draw_views(image.expand(8, 3, 32, 32)))
    assert every.shape == (16, 3, 16, 16) and every.dtype == torch.float32
    distances = torch.cdist(every.flatten(1), every.flatten(1))
    assert distances.fill_diagonal_(1).min() > 1e-2


def test_a_preset_may_be_names_and_values(make_learner: MakeLearner) -> None:
    images = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8)
    drawn = []
    for preset in ("small", {"base": "small"}):
        torch.manual_seed(7)
        drawn.append(torch.cat(make_learner(preset=preset).draw_views(images)))
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("smal", "unknown preset 'smal'. Did you mean 'small'"),
        ({"flp": 1}, "unknown setting 'flp' in preset"),
        ([1, 2], "preset is '\\[1, 2\\]', it must be a name"),
        (None, "preset is 'None', it must be a name"),
    ],
)
def test_a_preset_is_checked_before_the_first_batch(
    preset: Any, message: str, make_learner: MakeLearner
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_learner(preset=preset)
    assert "\n" not in str(caught.value)


def test_uint8_and_float_images_give_the_same_views(make_learner: MakeLearner) -> None:
    learner = make_learner(image_size=16)
    images = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8)
    torch.manual_seed(7)
    expected = torch.cat(learner.draw_views(images))
    torch.manual_seed(7)
    torch.testing.assert_close(torch.cat(learner.draw_views(images.float() / 255)), expected)
    in_range = expected * STD + MEAN
    assert in_range.min() >= -1e-5 and in_range.max() <= 1 + 1e-5
    assert expected.min() < -0.5, "views are normalised"


def test_drawing_leaves_the_images_alone(make_learner: MakeLearner) -> None:
    images = torch.rand(4, 3, 8, 8)
    before = images.clone()
    learner = make_learner()
    learner(images)
    learner(images, return_embedding=True)
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_the_users_augmentation_gets_plain_floats_and_is_used_as_it_is(
    kind: str, make_learner: MakeLearner
) -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    floats = images.float() / 255
    seen: list[Tensor] = []

    def half(batch: Tensor) -> Tensor:
        seen.append(batch.clone())
        return batch / 2

    learner = make_learner(augment_fn=half)
    view1, view2 = learner.draw_views(images if kind == "uint8" else floats)
    assert len(seen) == 2 and all(torch.equal(batch, floats) for batch in seen)
    assert torch.equal(view1, floats / 2) and torch.equal(view2, floats / 2)


def test_the_second_augmentation_makes_the_second_view(make_learner: MakeLearner) -> None:
    images = torch.rand(4, 3, 8, 8)
    learner = make_learner(augment_fn=lambda x: x + 1, augment_fn2=lambda x: x - 1)
    view1, view2 = learner.draw_views(images)
    assert torch.equal(view1, images + 1) and torch.equal(view2, images - 1)


def test_an_empty_sequential_is_an_augmentation_too(make_learner: MakeLearner) -> None:
    """It has no length, and so counts as false."""
    images = torch.rand(4, 3, 8, 8)
    learner = make_learner(augment_fn=lambda x: x + 1, augment_fn2=nn.Sequential())
    view1, view2 = learner.draw_views(images)
    assert torch.equal(view1, images + 1) and torch.equal(view2, images)


def test_a_second_augmentation_alone_replaces_the_second_view_only(make_learner: MakeLearner) -> None:
    images = torch.rand(4, 3, 8, 8)
    learner = make_learner(augment_fn2=lambda x: x - 1)
    torch.manual_seed(3)
    view1, view2 = learner.draw_views(images)
    torch.manual_seed(3)
    assert torch.equal(view1, make_and_draw(make_learner, images, seed=3)[0])
    assert torch.equal(view2, images - 1)


def make_and_draw(make_learner: MakeLearner, images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    learner = make_learner()
    torch.manual_seed(seed)
    return learner.draw_views(images)


def test_an_augmentation_that_works_in_place_spoils_nothing(make_learner: MakeLearner) -> None:
    images = torch.rand(4, 3, 8, 8)
    before = images.clone()
    view1, view2 = make_learner(augment_fn=lambda x: x.mul_(0.5)).draw_views(images)
    assert torch.equal(images, before)
    assert torch.equal(view1, before / 2) and torch.equal(view2, before / 2)


def test_ready_made_views_are_taken_as_they_are(
    make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]
) -> None:
    learner = make_learner(augment_fn=lambda x: x * float("nan"))
    torch.testing.assert_close(learner(*two_views), learner.compare(*two_views).loss)


def test_a_generator_free_learner_follows_the_global_seed(make_learner: MakeLearner) -> None:
    images = torch.rand(4, 3, 8, 8)
    first, again = (make_and_draw(make_learner, images, seed=5) for _ in range(2))
    other = make_and_draw(make_learner, images, seed=6)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[0], first[1])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels(
    channels: int, make_learner: MakeLearner, make_net: Callable[..., nn.Sequential]
) -> None:
    learner = make_learner(make_net(channels))
    assert learner.backbone.channels == channels
    images = torch.randint(0, 256, (4, channels, 9, 7), dtype=torch.uint8)
    loss = learner(images)
    loss.backward()
    assert 0 <= float(loss.detach()) <= 8


@pytest.mark.parametrize("shape", [(3, 3, 8, 8), (1, 3, 8, 8), (4, 1, 8, 8), (4, 3, 8, 6)], ids=str)
@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_views_of_different_shapes_are_one_line(
    normalization: str, shape: tuple[int, ...], make_learner: MakeLearner
) -> None:
    """A view of one image would else be compared with each of the other view's."""
    learner = make_learner(normalization=normalization)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    pairs = ((torch.rand(4, 3, 8, 8), torch.rand(shape)), (torch.rand(shape), torch.rand(4, 3, 8, 8)))
    for views, step in itertools.product(pairs, (learner, learner.compare_in_turn)):
        with pytest.raises(UserError) as caught:
            step(*views)
        first, second = (list(view.shape) for view in views)
        assert str(caught.value).startswith(f"the views are {first} and {second}: both must be [B,C,S,S]")
        assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_augmentations_that_return_different_sizes_are_one_line(make_learner: MakeLearner) -> None:
    learner = make_learner(augment_fn=nn.Identity(), augment_fn2=nn.AvgPool2d(2))
    with pytest.raises(UserError, match=r"views are \[4, 3, 8, 8\] and \[4, 3, 4, 4\]"):
        learner(torch.rand(4, 3, 8, 8))
