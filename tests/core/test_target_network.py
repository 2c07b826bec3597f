"""The target network: another object, out of every optimizer's reach, an exact moving average."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from byol.core.learner import BYOL
from byol.core.target import TargetNetwork
from byol.errors import UserError

MakeLearner = Callable[..., BYOL]


def target_of(learner: BYOL) -> TargetNetwork:
    assert learner.target is not None
    return learner.target


def shake(learner: BYOL, generator: torch.Generator) -> None:
    """Stand in for an optimizer: add noise to the online network."""
    with torch.no_grad():
        for parameter in learner.online.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def test_it_is_a_copy_and_shares_no_memory(make_learner: MakeLearner) -> None:
    learner = make_learner()
    target = target_of(learner)
    assert target.network is not learner.online
    online, copied = learner.online.state_dict(), target.network.state_dict()
    assert online.keys() == copied.keys()
    assert all(torch.equal(online[name], copied[name]) for name in online)
    theirs = {tensor.data_ptr() for tensor in online.values()}
    assert not theirs & {tensor.data_ptr() for tensor in copied.values()}
    modules = {id(module) for module in learner.online.modules()}
    assert not modules & {id(module) for module in target.network.modules()}


def test_its_projector_starts_as_the_online_one_and_is_averaged_too(make_learner: MakeLearner) -> None:
    learner = make_learner(moving_average_decay=0.5).double()
    online, target = learner.online.projector[0].weight, target_of(learner).network.projector[0].weight
    start = target.clone()
    assert torch.equal(start, online)
    with torch.no_grad():
        online.add_(1)
    learner.update_moving_average()
    torch.testing.assert_close(target, start + 0.5)


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD"])
def test_no_optimizer_moves_it(kind: str, make_learner: MakeLearner) -> None:
    learner = make_learner()
    before = [parameter.clone() for parameter in target_of(learner).parameters()]
    optimizer = getattr(torch.optim, kind)(learner.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        learner(torch.rand(4, 3, 8, 8)).backward()
        optimizer.step()
    after = list(target_of(learner).parameters())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in after)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("total_steps", [None, 7])
def test_it_equals_the_average_in_closed_form(total_steps: int | None, make_learner: MakeLearner) -> None:
    """xi_n = prod_k tau_k xi_0 + sum_k (1 - tau_k) prod_{j>k} tau_j theta_k, in float64."""
    learner = make_learner(moving_average_decay=0.9, total_steps=total_steps).double()
    initial = [parameter.clone() for parameter in learner.online.parameters()]
    history: list[list[Tensor]] = []
    generator = torch.Generator().manual_seed(3)
    for _ in range(7):
        shake(learner, generator)
        history.append([parameter.detach().clone() for parameter in learner.online.parameters()])
        learner.update_moving_average()
    if total_steps is None:
        taus = [0.9] * 7
    else:
        taus = [1 - (1 - 0.9) * (math.cos(math.pi * k / total_steps) + 1) / 2 for k in range(7)]
    for index, parameter in enumerate(target_of(learner).network.parameters()):
        expected = math.prod(taus) * initial[index]
        for k, weights in enumerate(history):
            expected = expected + (1 - taus[k]) * math.prod(taus[k + 1 :]) * weights[index]
        torch.testing.assert_close(parameter.data, expected, rtol=1e-12, atol=1e-12)


def test_tau_rises_from_its_base_to_one(make_learner: MakeLearner) -> None:
    learner = make_learner(moving_average_decay=0.6, total_steps=4)
    taus = []
    for _ in range(6):
        taus.append(learner.tau)
        learner.update_moving_average()
    assert taus == pytest.approx([0.6, 1 - 0.4 * (1 + math.sqrt(0.5)) / 2, 0.8, taus[3], 1, 1])
    assert taus == sorted(taus)


def test_each_call_moves_it_once(make_learner: MakeLearner) -> None:
    learner = make_learner(moving_average_decay=0.75)
    shake(learner, torch.Generator().manual_seed(0))
    gaps = []
    for _ in range(3):
        pairs = zip(learner.online.parameters(), target_of(learner).network.parameters(), strict=True)
        gaps.append(sum(float((online - target).detach().abs().sum()) for online, target in pairs))
        learner.update_moving_average()
    assert gaps[1] / gaps[0] == pytest.approx(0.75, rel=1e-5)
    assert gaps[2] / gaps[1] == pytest.approx(0.75, rel=1e-5)
    assert int(target_of(learner).step) == 3


def test_nothing_but_the_update_moves_it(make_learner: MakeLearner) -> None:
    learner = make_learner()
    shake(learner, torch.Generator().manual_seed(0))
    before = [parameter.clone() for parameter in target_of(learner).parameters()]
    learner(torch.rand(4, 3, 8, 8)).backward()
    learner.eval()(torch.rand(4, 3, 8, 8))
    assert all(map(torch.equal, before, target_of(learner).parameters()))
    assert int(target_of(learner).step) == 0


def test_the_step_is_saved_and_resumes_the_schedule(make_learner: MakeLearner) -> None:
    settings: dict[str, Any] = {"moving_average_decay": 0.9, "total_steps": 10}
    straight, resumed = make_learner(**settings), make_learner(**settings)
    for _ in range(4):
        straight.update_moving_average()
    assert straight.state_dict()["target.step"].item() == 4
    assert resumed.tau == pytest.approx(0.9)
    resumed.load_state_dict(straight.state_dict())
    assert resumed.tau == straight.tau
    for learner in (straight, resumed):
        shake(learner, torch.Generator().manual_seed(5))
        learner.update_moving_average()
    assert all(map(torch.equal, straight.state_dict().values(), resumed.state_dict().values()))
    assert int(target_of(resumed).step) == 5


def test_batch_norm_statistics_are_its_own(make_learner: MakeLearner) -> None:
    """Both networks saw the same two views; only the target keeps what the old weights made of them."""
    learner = make_learner(moving_average_decay=0.5)
    shake(learner, torch.Generator().manual_seed(0))
    images = torch.rand(4, 3, 8, 8)
    learner(images, images.flip(0))
    online, target = learner.online.backbone.net[1], target_of(learner).network.backbone.net[1]
    assert int(online.num_batches_tracked) == int(target.num_batches_tracked) == 2
    assert not torch.equal(online.running_mean, target.running_mean)
    before = target.running_mean.clone()
    learner.update_moving_average()
    assert torch.equal(target.running_mean, before)


def test_reset_makes_it_a_copy_again(make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]) -> None:
    learner = make_learner(total_steps=10)
    assert learner.target is not None
    optimizer = torch.optim.SGD(learner.online_parameters(), lr=0.5)
    learner(*two_views).backward()
    optimizer.step()
    learner.update_moving_average()
    tau, mine = learner.tau, learner.target.network.state_dict()
    assert any(not mine[name].equal(value) for name, value in learner.online.state_dict().items())
    learner.reset_moving_average()
    assert all(mine[name].equal(value) for name, value in learner.online.state_dict().items())
    assert learner.tau == tau
    assert not any(parameter.requires_grad for parameter in learner.target.parameters())


def test_simsiam_has_none(make_learner: MakeLearner) -> None:
    learner = make_learner(use_momentum=False)
    assert learner.target is None and learner.tau is None
    learner.update_moving_average()
    assert not any(name.startswith("target") for name in learner.state_dict())


@pytest.mark.parametrize("settings", [{"moving_average_decay": 1.5}, {"moving_average_decay": -0.1}])
def test_a_decay_that_is_no_share_is_refused(settings: dict[str, Any], make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match=r"moving_average_decay .* between 0 and 1"):
        make_learner(**settings)


def test_a_schedule_without_steps_is_refused(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match="total_steps is 0"):
        make_learner(total_steps=0)
