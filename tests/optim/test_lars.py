"""LARS against the published update written out in float64."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from byol.optim.groups import parameter_groups
from byol.optim.lars import LARS


class Written:
    """The update of `optimizers.py` (official code) for one parameter, in plain float64."""

    def __init__(self, weight: Tensor, **settings: Any) -> None:
        self.w = [float(value) for value in weight.detach().flatten()]
        self.m = [0.0] * len(self.w)
        self.settings = {"momentum": 0.9, "weight_decay": 0.0, "eta": 1e-3, "adapt": True, **settings}

    def step(self, gradient: Tensor, lr: float) -> None:
        s = self.settings
        g = [float(value) for value in gradient.flatten()]
        g = [gi + s["weight_decay"] * wi for gi, wi in zip(g, self.w, strict=True)]
        if s["adapt"]:
            w_norm, g_norm = (math.sqrt(sum(v * v for v in values)) for values in (self.w, g))
            ratio = s["eta"] * w_norm / g_norm if w_norm > 0 and g_norm > 0 else 1.0
            g = [gi * ratio for gi in g]
        self.m = [s["momentum"] * mi + gi for mi, gi in zip(self.m, g, strict=True)]
        self.w = [wi - lr * mi for wi, mi in zip(self.w, self.m, strict=True)]


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_two_hundred_steps_of_the_published_update(adapt: bool, weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (5,), (2, 3, 2, 2), ()]
    weights = [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]
    written = [Written(weight, adapt=adapt, weight_decay=weight_decay) for weight in weights]
    optimizer = LARS(weights, lr=1.0, weight_decay=weight_decay, adapt=adapt)
    for step in range(200):
        lr = 2.0 * (200 - step) / 200
        optimizer.param_groups[0]["lr"] = lr
        for weight, formula in zip(weights, written, strict=True):
            weight.grad = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            formula.step(weight.grad, lr)
        optimizer.step()
    for weight, formula in zip(weights, written, strict=True):
        expected = torch.tensor(formula.w, dtype=torch.float64)
        torch.testing.assert_close(weight.detach().flatten(), expected, rtol=1e-11, atol=1e-12)


def test_two_hundred_steps_of_a_network_with_exclusions() -> None:
    """Weights are decayed and adapted, biases and norms neither; some gradients and weights are zero."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.Linear(4, 2), nn.Linear(2, 2)).double()
    nn.init.zeros_(net[3].weight)
    excluded = {"0.bias", "1.weight", "1.bias", "2.bias", "3.bias"}
    written = {
        name: Written(p, weight_decay=0.0 if name in excluded else 0.05, adapt=name not in excluded)
        for name, p in net.named_parameters()
    }
    optimizer = LARS(parameter_groups(net, net.named_parameters(), 0.05), lr=1.0)
    for step in range(200):
        lr = 2.0 * (200 - step) / 200
        for group in optimizer.param_groups:
            group["lr"] = lr
        for index, (name, p) in enumerate(net.named_parameters()):
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.grad *= 0.0 if (step + index) % 5 == 0 or (name == "3.weight" and step < 50) else 1.0
            written[name].step(p.grad, lr)
        optimizer.step()
        if step == 49:
            assert not net[3].weight.any(), "a zero weight with zero gradients stays where it is"
    for name, p in net.named_parameters():
        expected = torch.tensor(written[name].w, dtype=torch.float64)
        torch.testing.assert_close(p.detach().flatten(), expected, rtol=1e-11, atol=1e-12)


def test_groups_have_settings_of_their_own() -> None:
    weights = [nn.Parameter(torch.randn(3, dtype=torch.float64)) for _ in range(2)]
    settings = [{"weight_decay": 0.1, "adapt": True}, {"weight_decay": 0.0, "adapt": False}]
    written = [Written(w, momentum=0.8, eta=0.02, **s) for w, s in zip(weights, settings, strict=True)]
    groups = [{"params": [w], **s} for w, s in zip(weights, settings, strict=True)]
    optimizer = LARS(groups, lr=0.3, momentum=0.8, trust_coefficient=0.02)
    for _ in range(5):
        for weight, formula in zip(weights, written, strict=True):
            weight.grad = torch.randn(3, dtype=torch.float64)
            formula.step(weight.grad, 0.3)
        optimizer.step()
    for weight, formula in zip(weights, written, strict=True):
        assert weight.tolist() == pytest.approx(formula.w, rel=1e-11)


def test_no_decay_does_not_mean_no_adaptation() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight.grad = torch.tensor([0.0, 2.0])
    LARS([weight], lr=1.0, weight_decay=0.0).step()
    assert weight.tolist() == pytest.approx([3.0, 4.0 - 1e-3 * 5 / 2 * 2])


def test_zero_gradients_and_zero_weights() -> None:
    """Where a norm is zero the ratio is 1: zero weights take the plain step."""
    still = nn.Parameter(torch.tensor([1.0, -2.0]))
    still.grad = torch.zeros(2)
    zero = nn.Parameter(torch.zeros(2))
    zero.grad = torch.tensor([1.0, -2.0])
    both = nn.Parameter(torch.zeros(2))
    both.grad = torch.zeros(2)
    LARS([still, zero, both], lr=0.1).step()
    assert still.tolist() == [1.0, -2.0]
    assert zero.tolist() == pytest.approx([-0.1, 0.2])
    assert both.tolist() == [0.0, 0.0]


def test_decay_alone_moves_a_weight_without_gradient() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight.grad = torch.zeros(2)
    LARS([weight], lr=1.0, weight_decay=0.5).step()
    # g = 0.5 w, so the ratio is eta / 0.5 and the step eta w.
    assert weight.tolist() == pytest.approx([3 * 0.999, 4 * 0.999])


def test_missing_gradients_are_left_alone() -> None:
    present, missing = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = LARS([{"params": [present, missing]}, {"params": [nn.Parameter(torch.ones(1))]}], lr=0.1)
    present.grad = torch.ones(2)
    optimizer.step()
    assert missing.tolist() == [1.0, 1.0] and missing not in optimizer.state
    assert present.tolist() != [1.0, 1.0]
    # A gradient that comes later starts from no momentum.
    missing.grad = torch.ones(2)
    optimizer.step()
    assert optimizer.state[missing]["momentum"].tolist() == pytest.approx([1e-3, 1e-3])


def test_the_gradients_themselves_stay() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.tensor([1.0, 2.0, 3.0])
    LARS([weight], lr=0.1, weight_decay=0.1).step()
    assert weight.grad.tolist() == [1.0, 2.0, 3.0]


def test_a_closure_is_called_once_with_gradients_enabled() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = LARS([weight], lr=0.1)
    calls: list[float] = []

    def closure() -> float:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        calls.append(loss.item())
        return loss.item()

    assert optimizer.step(closure) == 2.0 and calls == [2.0]
    assert weight[0] < 1


def trained(optimizer: LARS, weights: list[nn.Parameter], steps: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
    return [weight.detach().clone() for weight in weights]


def test_its_state_goes_round() -> None:
    def make() -> tuple[LARS, list[nn.Parameter]]:
        weights = [nn.Parameter(torch.linspace(-1, 1, 4)), nn.Parameter(torch.ones(2, 2))]
        groups = [{"params": weights[:1], "adapt": False}, {"params": weights[1:], "weight_decay": 0.1}]
        return LARS(groups, lr=0.1), weights

    straight, weights = make()
    trained(straight, weights, 3, seed=0)
    resumed, other = make()
    with torch.no_grad():
        for target, source in zip(other, weights, strict=True):
            target.copy_(source)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    ends = trained(straight, weights, 3, seed=1), trained(resumed, other, 3, seed=1)
    assert all(map(torch.equal, *ends))
    assert [group["adapt"] for group in resumed.param_groups] == [False, True]


def test_a_learning_rate_schedule_of_torch_drives_it() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = LARS([weight], lr=1.0, momentum=0.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for _ in range(3):
        weight.grad = torch.ones(1)
        with torch.no_grad():
            weight.zero_()
        optimizer.step()
        schedule.step()
    assert weight.item() == pytest.approx(-0.25)


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": -0.1},
        {"lr": math.nan},
        {"lr": 0.1, "momentum": -0.1},
        {"lr": 0.1, "momentum": 1.1},
        {"lr": 0.1, "weight_decay": -1e-6},
        {"lr": 0.1, "trust_coefficient": -1e-3},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        LARS([nn.Parameter(torch.ones(1))], **settings)


def test_it_needs_parameters() -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        LARS([], lr=0.1)


def test_it_trains(make_quadratic: Callable[[], tuple[nn.Parameter, Callable[[], Tensor]]]) -> None:
    weight, loss = make_quadratic()
    optimizer = LARS([weight], lr=5.0, trust_coefficient=0.01)
    before = loss().item()
    for _ in range(200):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.1 * before


@pytest.fixture
def make_quadratic() -> Callable[[], tuple[nn.Parameter, Callable[[], Tensor]]]:
    def make() -> tuple[nn.Parameter, Callable[[], Tensor]]:
        weight = nn.Parameter(torch.tensor([1.0, 1.0]))
        return weight, lambda: ((weight - torch.tensor([3.0, -2.0])) ** 2).sum()

    return make
