"""What the target's batch normalisation does: its own batch statistics, copied ones, averaged ones."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from byol.core.learner import BYOL
from byol.core.target import TargetNetwork
from byol.errors import UserError

MakeLearner = Callable[..., BYOL]
RUNNING = ("running_mean", "running_var")


def flat_net() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.BatchNorm1d(7))


def make(statistics: str, make_learner: MakeLearner, **settings: Any) -> BYOL:
    return make_learner(flat_net(), hidden_layer=None, target_statistics=statistics, **settings).double()


def target_of(learner: BYOL) -> TargetNetwork:
    assert learner.target is not None
    return learner.target


def train(learner: BYOL, steps: int, seed: int = 1) -> list[dict[str, Tensor]]:
    """Take steps of SGD; return the online network's buffers at each update."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(learner.online_parameters(), lr=0.1)
    history = []
    for _ in range(steps):
        views = torch.randn(2, 6, 3, 8, 8, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        learner(*views).backward()
        optimizer.step()
        history.append({name: buffer.clone() for name, buffer in learner.online.named_buffers()})
        learner.update_moving_average()
    return history


def normalised(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Batch normalisation with running statistics, written out."""
    mean, variance = (state[f"{name}.{running}"] for running in RUNNING)
    return (x - mean) / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def projected(images: Tensor, state: dict[str, Tensor]) -> Tensor:
    x = images.flatten(1) @ state["backbone.net.1.weight"].T + state["backbone.net.1.bias"]
    x = normalised(x, state, "backbone.net.2")
    x = x @ state["projector.0.weight"].T + state["projector.0.bias"]
    return normalised(x, state, "projector.1").clamp(min=0) @ state["projector.3.weight"].T


def test_copied_statistics_are_the_online_networks_at_the_last_update(make_learner: MakeLearner) -> None:
    learner = make("copy", make_learner, moving_average_decay=0.9)
    history = train(learner, 3)
    learner(*torch.rand(2, 4, 3, 8, 8, dtype=torch.float64))  # moves the online network's alone
    buffers = dict(target_of(learner).network.named_buffers())
    assert len(buffers) == 6
    assert all(torch.equal(buffers[name], history[-1][name]) for name in buffers)
    assert not any(torch.equal(history[0][name], history[1][name]) for name in buffers)
    online = dict(learner.online.named_buffers())
    assert not any(torch.equal(buffers[name], online[name]) for name in buffers)


@pytest.mark.parametrize("total_steps", [None, 5])
def test_averaged_statistics_equal_the_closed_form(
    total_steps: int | None, make_learner: MakeLearner
) -> None:
    """xi_n = prod_k tau_k xi_0 + sum_k (1 - tau_k) prod_{j>k} tau_j theta_k; counters are copied."""
    learner = make("average", make_learner, moving_average_decay=0.8, total_steps=total_steps)
    initial = {name: buffer.clone() for name, buffer in learner.online.named_buffers()}
    history = train(learner, 5)
    taus = [0.8] * 5
    if total_steps is not None:
        taus = [1 - 0.2 * (math.cos(math.pi * k / total_steps) + 1) / 2 for k in range(5)]
    for name, buffer in target_of(learner).network.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert int(buffer) == int(history[-1][name]) == 10
            continue
        expected = math.prod(taus) * initial[name]
        for k, buffers in enumerate(history):
            expected = expected + (1 - taus[k]) * math.prod(taus[k + 1 :]) * buffers[name]
        torch.testing.assert_close(buffer, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("statistics", ["copy", "average"])
@pytest.mark.parametrize("mode", ["as built", "train", "eval"])
def test_the_target_normalises_with_them_in_every_mode(
    statistics: str, mode: str, make_learner: MakeLearner
) -> None:
    learner = make(statistics, make_learner)
    if mode != "as built":
        learner.train(mode == "train")
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    if mode == "eval":
        learner.train()
        train(learner, 3)
        learner.eval()
    else:
        train(learner, 3)
    target = target_of(learner)
    before = copy.deepcopy(target.state_dict())
    expected = projected(images, target.network.state_dict())
    torch.testing.assert_close(target(images), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(target(images[:1]), expected[:1], rtol=1e-10, atol=1e-12)
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())
    assert learner.online.backbone.net[2].training == (mode != "eval")


def test_its_other_layers_follow_the_mode(make_learner: MakeLearner) -> None:
    net = nn.Sequential(*flat_net(), nn.Dropout(0.5))
    learner = make_learner(net, hidden_layer=None, target_statistics="average")
    modes = [learner.train(), copy.deepcopy(learner).eval()]
    layers = [target_of(one).network.backbone.net for one in modes]
    assert [(layer[2].training, layer[3].training) for layer in layers] == [(False, True), (False, False)]


@pytest.mark.parametrize("statistics", ["copy", "average"])
def test_state_dict_and_copies_go_on_alike(statistics: str, make_learner: MakeLearner) -> None:
    straight = make(statistics, make_learner, total_steps=9)
    train(straight, 3)
    loaded = make(statistics, make_learner, total_steps=9)
    loaded.load_state_dict(straight.state_dict())
    copied = copy.deepcopy(straight)
    for learner in (straight, loaded, copied):
        train(learner, 2, seed=2)
    for other in (loaded, copied):
        assert not target_of(other).network.projector[1].training
        assert all(map(torch.equal, straight.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("statistics", ["copy", "average"])
def test_compiled_it_takes_the_same_steps(statistics: str, make_learner: MakeLearner) -> None:
    learner = make(statistics, make_learner)
    plain = copy.deepcopy(learner)
    compiled = torch.compile(learner, backend="aot_eager", fullgraph=True)
    views = torch.randn(2, 6, 3, 8, 8, dtype=torch.float64)
    for _ in range(2):
        losses = compiled(*views), plain(*views)
        torch.testing.assert_close(*losses)
        learner.update_moving_average()
        plain.update_moving_average()
    for one, other in zip(learner.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


def test_own_statistics_are_the_default(make_learner: MakeLearner) -> None:
    learner = make_learner()
    assert target_of(learner).statistics == "own"
    assert all(module.training for module in target_of(learner).modules())


def test_where_it_means_nothing_it_is_refused(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match="target_statistics is 'copy', but SimSiam has no target network"):
        make_learner(use_momentum=False, target_statistics="copy")
    with pytest.raises(UserError, match=r"unknown target_statistics 'mean'.*own, copy, average"):
        make_learner(target_statistics="mean")
