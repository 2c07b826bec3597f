"""Loss and gradients against the algorithm written out here in float64, without torch's modules."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from byol.core.learner import BYOL
from byol.core.losses import negative_cosine, regression_loss
from byol.optim.groups import parameter_groups
from byol.optim.lars import LARS

MakeLearner = Callable[..., BYOL]
Weights = dict[str, Tensor]
NET = "backbone.net."


def batch_norm(x: Tensor, scale: Tensor | float = 1.0, offset: Tensor | float = 0.0) -> Tensor:
    """Normalise each channel by this batch's mean and biased variance."""
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean = x.mean(axes, keepdim=True)
    variance = ((x - mean) ** 2).mean(axes, keepdim=True)
    scale, offset = (v.view(shape) if isinstance(v, Tensor) else v for v in (scale, offset))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + offset


def backbone(x: Tensor, w: Weights) -> Tensor:
    for conv, norm, stride in (("0", "1", 2), ("3", "4", 1)):
        x = F.conv2d(x, w[f"{NET}{conv}.weight"], w[f"{NET}{conv}.bias"], stride, padding=1)
        x = batch_norm(x, w[f"{NET}{norm}.weight"], w[f"{NET}{norm}.bias"]).clamp(min=0)
    return x.sum((2, 3)) / (x.shape[2] * x.shape[3])


def mlp(x: Tensor, w: Weights, name: str) -> Tensor:
    x = x @ w[f"{name}0.weight"].T + w[f"{name}0.bias"]
    x = batch_norm(x, w[f"{name}1.weight"], w[f"{name}1.bias"]).clamp(min=0)
    return x @ w[f"{name}3.weight"].T


def simsiam_projector(x: Tensor, w: Weights) -> Tensor:
    for linear, norm in (("0", "1"), ("3", "4")):
        x = x @ w[f"projector.{linear}.weight"].T
        x = batch_norm(x, w[f"projector.{norm}.weight"], w[f"projector.{norm}.bias"]).clamp(min=0)
    return batch_norm(x @ w["projector.6.weight"].T)


def simsiam_predictor(x: Tensor, w: Weights) -> Tensor:
    x = batch_norm(x @ w["0.weight"].T, w["1.weight"], w["1.bias"]).clamp(min=0)
    return x @ w["3.weight"].T + w["3.bias"]


def distance(p: Tensor, z: Tensor) -> Tensor:
    """Mean over the batch of |p/|p| - z/|z||^2."""
    p, z = (v / (v**2).sum(1, keepdim=True).sqrt() for v in (p, z))
    return ((p - z) ** 2).sum(1).mean()


def byol_loss(
    v1: Tensor, v2: Tensor, online: Weights, predictor: Weights, target: Weights, concatenate: bool
) -> Tensor:
    """The loss of two views; a pass each, so that each has its own batch statistics, or one for both."""

    def project(x: Tensor, weights: Weights) -> Tensor:
        return mlp(backbone(x, weights), weights, "projector.")

    def on_both(function: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return function(torch.cat([a, b])).chunk(2) if concatenate else (function(a), function(b))

    y1, y2 = on_both(lambda x: project(x, online), v1, v2)
    p1, p2 = on_both(lambda x: mlp(x, predictor, ""), y1, y2)
    with torch.no_grad():
        z1, z2 = on_both(lambda x: project(x, target), v1, v2)
    return distance(p1, z2) + distance(p2, z1)


def leaves(learner: BYOL) -> tuple[Weights, Weights]:
    """Return copies of the online network's and the predictor's parameters that collect gradients."""
    return (
        {name: p.detach().clone().requires_grad_() for name, p in learner.online.named_parameters()},
        {name: p.detach().clone().requires_grad_() for name, p in learner.predictor.named_parameters()},
    )


def assert_same_gradients(learner: BYOL, online: Weights, predictor: Weights) -> None:
    compared = 0
    for module, expected in ((learner.online, online), (learner.predictor, predictor)):
        for name, parameter in module.named_parameters():
            if expected[name].grad is None:
                assert parameter.grad is None, name
                continue
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-9, atol=1e-12)
            compared += 1
    assert compared >= 13


def moved_apart(learner: BYOL) -> BYOL:
    """Return it in float64 with a target that differs from the online network."""
    learner.double()
    if learner.target is not None:
        with torch.no_grad():
            for parameter in learner.target.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return learner


@pytest.mark.parametrize("concatenate", [False, True])
def test_byol(concatenate: bool, make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]) -> None:
    learner = moved_apart(make_learner(concatenate_views=concatenate))
    v1, v2 = (view.double() for view in two_views)
    online, predictor = leaves(learner)
    assert learner.target is not None
    target = dict(learner.target.network.named_parameters())

    expected = byol_loss(v1, v2, online, predictor, target, concatenate)
    expected.backward()

    loss = learner(v1, v2)
    loss.backward()
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert_same_gradients(learner, online, predictor)


def lars_step(weights: Weights, momenta: Weights, lr: float) -> None:
    """The published update with weight decay 0.01; biases and the four norms are left alone."""
    for name, weight in weights.items():
        if weight.grad is None:
            continue
        update = weight.grad
        is_norm = name.startswith((f"{NET}1.", f"{NET}4.", "projector.1.", "1."))
        if not (is_norm or name.endswith("bias")):
            update = update + 0.01 * weight.data
            update = update * 1e-3 * weight.data.norm() / update.norm()
        momenta[name] = 0.9 * momenta.get(name, torch.zeros_like(update)) + update
        weight.data = weight.data - lr * momenta[name]
        weight.grad = None


@pytest.mark.parametrize("concatenate", [False, True])
def test_twenty_training_steps(concatenate: bool, make_learner: MakeLearner) -> None:
    """Losses, online network, predictor and target of a whole run: LARS, tau rising along its cosine."""
    learner = make_learner(concatenate_views=concatenate, moving_average_decay=0.9, total_steps=20).double()
    online, predictor = leaves(learner)
    target = {name: weight.detach().clone() for name, weight in online.items()}
    momenta: tuple[Weights, Weights] = ({}, {})
    groups = parameter_groups(learner, learner.named_online_parameters(), weight_decay=0.01)
    optimizer = LARS(groups, lr=0.5)
    generator = torch.Generator().manual_seed(2)
    for k in range(20):
        v1, v2 = torch.randn(2, 6, 3, 8, 8, generator=generator, dtype=torch.float64)
        expected = byol_loss(v1, v2, online, predictor, target, concatenate)
        expected.backward()
        for weights, momentum in zip((online, predictor), momenta, strict=True):
            lars_step(weights, momentum, lr=0.5)
        tau = 1 - (1 - 0.9) * (math.cos(math.pi * k / 20) + 1) / 2
        target = {name: tau * target[name] + (1 - tau) * online[name].detach() for name in target}

        loss = learner(v1, v2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.update_moving_average()
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-11)
    assert learner.target is not None
    ends = ((learner.online, online), (learner.predictor, predictor), (learner.target.network, target))
    for module, expected_weights in ends:
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(parameter.data, expected_weights[name].data, rtol=1e-9, atol=1e-11)


def test_simsiam(make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]) -> None:
    learner = make_learner(use_momentum=False).double()
    v1, v2 = (view.double() for view in two_views)
    online, predictor = leaves(learner)
    z1, z2 = (simsiam_projector(backbone(view, online), online) for view in (v1, v2))
    p1, p2 = (simsiam_predictor(z, predictor) for z in (z1, z2))
    # D = -cos = |p - z|^2 / 2 - 1 on the sphere; half of each direction.
    expected = (distance(p1, z2.detach()) / 2 - 1) / 2 + (distance(p2, z1.detach()) / 2 - 1) / 2
    expected.backward()
    loss = learner(v1, v2)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert_same_gradients(learner, online, predictor)


def test_concatenating_changes_the_batch_statistics(
    make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]
) -> None:
    learner = make_learner()
    first, second = two_views
    apart = learner(first, second + 1).item()
    learner.concatenate_views = True
    assert abs(apart - learner(first, second + 1).item()) > 1e-4


@pytest.mark.parametrize("concatenate", [False, True])
def test_what_is_on_the_way_comes_with_the_loss(
    concatenate: bool, make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]
) -> None:
    learner = make_learner(concatenate_views=concatenate).eval()
    output = learner.compare(*two_views)
    torch.testing.assert_close(output.projection, learner.online(torch.cat(two_views)))
    assert learner.target is not None
    torch.testing.assert_close(output.target, learner.target(torch.cat(two_views)))
    assert output.loss.requires_grad
    torch.testing.assert_close(output.representation, learner.backbone(torch.cat(two_views)))
    for vectors in (output.projection, output.target, output.representation):
        assert not vectors.requires_grad


def test_the_loss_is_a_mean_over_the_batch_not_a_sum(
    make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]
) -> None:
    """A sum would tie the learning rate to the batch size. Twice the batch has the same statistics."""
    for momentum in (True, False):
        learner = make_learner(use_momentum=momentum).double()
        once = learner(*(view.double() for view in two_views))
        twice = learner(*(view.double().repeat(2, 1, 1, 1) for view in two_views))
        torch.testing.assert_close(once, twice)


def test_the_losses_reach_their_ends() -> None:
    p = torch.tensor([[1.0, 0], [3, 4], [0, -2]])
    assert regression_loss(p, 5 * p).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert regression_loss(p, -p).tolist() == pytest.approx([4, 4, 4])
    assert negative_cosine(p, 5 * p).tolist() == pytest.approx([-1, -1, -1])
    orthogonal = torch.tensor([[0.0, 1], [4, -3], [7, 0]])
    assert regression_loss(p, orthogonal).tolist() == pytest.approx([2, 2, 2])


@pytest.mark.parametrize(("momentum", "low", "high"), [(True, 0, 8), (False, -1, 1)])
def test_the_loss_of_random_networks_lies_in_its_range(
    momentum: bool, low: float, high: float, make_learner: MakeLearner
) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        loss = make_learner(use_momentum=momentum)(torch.rand(4, 3, 8, 8)).item()
        assert low <= loss <= high


@pytest.mark.parametrize("momentum", [True, False])
def test_under_autocast_the_loss_is_close_and_float32(
    momentum: bool, make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]
) -> None:
    learner = make_learner(use_momentum=momentum, projection_size=64, projection_hidden_size=64)
    full = learner(*two_views)
    with torch.autocast("cpu", torch.bfloat16):
        loss = learner(*two_views)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(full.item(), rel=0.05, abs=0.05)
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in learner.online_parameters())


def test_both_directions_count_alike(make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]) -> None:
    learner = moved_apart(make_learner())
    first, second = (view.double() for view in two_views)
    torch.testing.assert_close(learner(first, second), learner(second, first))
