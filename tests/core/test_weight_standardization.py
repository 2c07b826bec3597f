"""Standardised weights against the formula of arXiv 1903.10520, section 3.1, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from byol.core.weight_standardization import StandardizedConv2d, standardize_weights, standardized


def written_out(weight: Tensor) -> Tensor:
    """(w - mean) / sqrt(variance + 1e-8), output by output."""
    rows = []
    for values in weight.detach().flatten(1).tolist():
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        rows.append([(value - mean) / (variance + 1e-8) ** 0.5 for value in values])
    return torch.tensor(rows, dtype=torch.float64).view_as(weight)


def layers() -> list[nn.Module]:
    convolution = nn.Conv2d(6, 4, 3, stride=2, padding=2, dilation=2, groups=2)
    return [convolution.double(), nn.Conv2d(3, 5, 1, bias=False).double(), nn.Linear(7, 5).double()]


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_weights_equal_the_formula(scale: float) -> None:
    for layer in layers():
        weight = scale * layer.weight.detach() + 0.3 * scale
        torch.testing.assert_close(standardized(weight), written_out(weight), rtol=1e-11, atol=1e-13)


def test_layers_compute_with_standardised_weights() -> None:
    strided, pointwise, linear = layers()
    weights = [written_out(layer.weight) for layer in (strided, pointwise, linear)]
    for layer in (strided, pointwise, linear):
        standardize_weights(layer)
    images, vectors = torch.randn(2, 6, 9, 9).double(), torch.randn(3, 7).double()
    expected = F.conv2d(images, weights[0], strided.bias, stride=2, padding=2, dilation=2, groups=2)
    torch.testing.assert_close(strided(images), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        pointwise(images[:, :3]), F.conv2d(images[:, :3], weights[1]), rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(linear(vectors), vectors @ weights[2].T + linear.bias, rtol=1e-10, atol=1e-12)


def test_gradients_pass_through_the_standardisation() -> None:
    """The plain weights are trained: an output's gradient says nothing about its weights' mean."""
    layer = layers()[2]
    standardize_weights(layer)
    vectors = torch.randn(3, 7).double()
    layer(vectors).square().sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    mean = weight.sum(1, keepdim=True) / 7
    scale = (((weight - mean) ** 2).sum(1, keepdim=True) / 7 + 1e-8).sqrt()
    (vectors @ ((weight - mean) / scale).T + layer.bias.detach()).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.weight.grad.sum(1), torch.zeros(5).double(), rtol=0, atol=1e-10)


def test_a_layer_stays_the_object_that_it_was() -> None:
    layer = nn.Conv2d(3, 4, 3)
    weight, seen = layer.weight, []
    layer.register_forward_hook(lambda *arguments: seen.append(arguments[2].shape))
    standardize_weights(layer)
    standardize_weights(layer)
    assert type(layer) is StandardizedConv2d and layer.weight is weight
    assert layer(torch.rand(2, 3, 5, 5)).shape == (2, 4, 3, 3) == tuple(seen[0])
    assert layer.state_dict().keys() == {"weight", "bias"}
    other = nn.ConvTranspose2d(3, 4, 3)
    standardize_weights(other)
    assert type(other) is nn.ConvTranspose2d
