"""Pixel propagation against sums written out, and the 1x1 perceptron."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from byol.core.pixel_heads import PixelPropagation, pixel_projector
from byol.errors import UserError
from tests.core.pixel_loops import at_places, looped_propagation, perceptron


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
def test_it_is_a_sum_over_all_places(layers: int, gamma: float) -> None:
    module = PixelPropagation(5, layers, gamma).double()
    feature_map = torch.randn(3, 5, 2, 4, dtype=torch.float64)
    rows, transform = at_places(feature_map), module.transform
    if layers == 2:
        rows = perceptron(transform, rows)
    elif layers == 1:
        assert isinstance(transform, nn.Conv2d)
        rows = rows @ transform.weight[:, :, 0, 0].T + transform.bias
    values = rows.view(3, 2, 4, 5).permute(0, 3, 1, 2)
    expected = looped_propagation(feature_map, values, gamma)
    torch.testing.assert_close(module(feature_map), expected, rtol=1e-12, atol=1e-12)


def test_its_defaults_are_the_paper_s() -> None:
    module = PixelPropagation(5)
    assert module.gamma == 2 and isinstance(module.transform, nn.Conv2d)


def test_gradients_agree_with_differences() -> None:
    module = PixelPropagation(3, 1).double()
    feature_map = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (feature_map,))


def test_the_projector_is_a_perceptron_at_each_place() -> None:
    head = pixel_projector(4, 7, 5).double()
    feature_map = torch.randn(3, 4, 2, 3, dtype=torch.float64)
    found = head(feature_map)
    assert found.shape == (3, 5, 2, 3)
    torch.testing.assert_close(at_places(found), perceptron(head, at_places(feature_map)))


def test_under_autocast_the_sum_is_in_float32() -> None:
    module = PixelPropagation(64, 0)
    feature_map = torch.randn(2, 64, 7, 7)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(feature_map)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, module(feature_map), rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):  # bf16 comes in, as from a projector
        rounded = module(feature_map.bfloat16())
    assert rounded.dtype == torch.float32
    assert F.cosine_similarity(rounded, found).min() > 0.999


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 3}, "0, 1 or 2 layers, not 3"),
        ({"layers": -1}, "0, 1 or 2 layers, not -1"),
        ({"gamma": 0.5}, "gamma is 0.5, it must be at least 1"),
    ],
)
def test_what_is_out_of_range_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PixelPropagation(5, **settings)  # type: ignore[arg-type]
