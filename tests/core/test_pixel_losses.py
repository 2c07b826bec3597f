"""Losses between places: against loops over pairs in float64, values and gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from byol.core.pixel_losses import matched_images, pixel_consistency, pixel_contrast
from tests.core.pixel_loops import looped_consistency, looped_contrast

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, tuple[Loss, Loss]] = {
    "consistency": (pixel_consistency, looped_consistency),
    "contrast": (pixel_contrast, lambda p, t, chosen: looped_contrast(p, t, chosen, 0.3)),
    "contrast, sharper": (
        lambda p, t, chosen: pixel_contrast(p, t, chosen, 0.05),
        lambda p, t, chosen: looped_contrast(p, t, chosen, 0.05),
    ),
}


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    """A prediction [4,6,2,3] that wants a gradient, and a target."""
    prediction, target = torch.randn(2, 4, 6, 2, 3, dtype=torch.float64)
    return prediction.requires_grad_(), target


@pytest.fixture
def chosen() -> Tensor:
    """A third of the pairs [4,6,6]; the third image has none, the first cell of the second neither."""
    pairs = torch.rand(4, 6, 6) < 0.3
    pairs[2] = False
    pairs[1, 0] = False
    return pairs


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_those_of_a_loop(
    name: str, maps: tuple[Tensor, Tensor], chosen: Tensor
) -> None:
    ours, looped = LOSSES[name]
    weights = torch.rand(4, dtype=torch.float64)
    results = []
    for loss in (ours, looped):
        losses = loss(*maps, chosen)
        results.append((losses, torch.autograd.grad((losses * weights).sum(), maps[0])[0]))
    (losses, gradient), (expected, expected_gradient) = results
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)
    assert losses[2] == 0 and not gradient[2].any() and gradient[3].any()


@pytest.mark.parametrize("name", LOSSES)
def test_without_any_pair_there_is_a_zero_with_a_gradient_path(
    name: str, maps: tuple[Tensor, Tensor]
) -> None:
    none = torch.zeros(4, 6, 6, dtype=torch.bool)
    loss = LOSSES[name][0](*maps, none).sum() / matched_images(none)
    loss.backward()
    assert loss == 0
    assert maps[0].grad is not None and not maps[0].grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_lower_precision_is_computed_in_float32(
    name: str, maps: tuple[Tensor, Tensor], chosen: Tensor
) -> None:
    rounded = tuple(each.detach().bfloat16() for each in maps)
    found = LOSSES[name][0](*rounded, chosen)
    assert found.dtype == torch.float32
    expected = LOSSES[name][1](*(each.double() for each in rounded), chosen)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_vectors_of_zeros_have_finite_gradients(name: str, chosen: Tensor) -> None:
    """A ReLU may leave nothing at a place."""
    prediction = torch.zeros(4, 6, 2, 3, requires_grad=True)
    LOSSES[name][0](prediction, torch.zeros(4, 6, 2, 3), chosen).sum().backward()
    assert prediction.grad is not None and prediction.grad.isfinite().all()


def test_the_best_consistency_is_0_and_the_worst_4() -> None:
    one, chosen = torch.randn(2, 5, 3, 3), torch.eye(9).bool().expand(2, 9, 9)
    torch.testing.assert_close(pixel_consistency(one, 3 * one, chosen), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(pixel_consistency(one, -one, chosen), torch.full((2,), 4.0))


def test_images_with_a_pair_are_counted() -> None:
    pairs = torch.zeros(3, 4, 4, dtype=torch.bool)
    assert matched_images(pairs) == 1, "nothing is divided by 0"
    pairs[0, 1, 2] = pairs[2, 0, 0] = pairs[2, 3, 1] = True
    assert matched_images(pairs) == matched_images(pairs.transpose(1, 2)) == 2
