"""What the optimizer of a run holds."""

from copy import deepcopy
from typing import Any, Literal

import pytest
import torch
import torchvision
from torch.optim import Optimizer

from byol.core.learner import BYOL
from byol.data.batches import BatchPlan
from byol.training.checkpoint import checkpoint_of, restore
from byol.training.module import OptimizerSettings, Pretraining, build_optimizer
from tests.training.conftest import tiny_net


@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
@pytest.mark.parametrize("momentum", [True, False])
def test_it_holds_all_online_parameters_and_no_others(
    name: Literal["lars", "adamw", "sgd"], momentum: bool
) -> None:
    """Elsewhere it has held the target's (Spijkervet), or missed heads built late (sabadijou)."""
    net = torchvision.models.resnet18()
    learner = BYOL(net, 32, "avgpool", 16, 32, use_momentum=momentum)
    settings = OptimizerSettings(name, 0.1, 1e-4, decay_all=False, warmup_steps=0, total_steps=1)
    optimizer = build_optimizer(settings, learner)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    wanted = [*net.parameters(), *learner.online.projector.parameters(), *learner.predictor.parameters()]
    unused = {id(parameter) for parameter in net.fc.parameters()}
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in wanted} - unused
    assert all(torch.is_tensor(p) and p.requires_grad for g in optimizer.param_groups for p in g["params"])


@pytest.mark.parametrize("decay_all", [False, True])
def test_a_fused_step_of_sgd_is_the_plain_one(decay_all: bool) -> None:
    """Of torch's loop over parameters; to 1e-6 of the largest number in each."""
    learner = BYOL(tiny_net(), 32, None, 8, 16)
    settings = OptimizerSettings("sgd", 0.3, 0.1, decay_all, warmup_steps=0, total_steps=5)
    fused = build_optimizer(settings, learner)
    assert all(group["fused"] for group in fused.param_groups)
    weights = [parameter for group in fused.param_groups for parameter in group["params"]]
    copies = [weight.detach().clone().requires_grad_() for weight in weights]
    plain = torch.optim.SGD(regrouped(fused, copies), 0.3, momentum=0.9, foreach=False, fused=False)
    for step in range(5):
        for weight, copied in zip(weights, copies, strict=True):
            weight.grad = torch.randn(weight.shape)
            copied.grad = weight.grad.clone()
        for optimizer in (fused, plain):
            for group in optimizer.param_groups:
                group["lr"] = 0.3 / (step + 1)
            optimizer.step()
    for weight, copied in zip(weights, copies, strict=True):
        assert float((weight - copied).detach().abs().max()) <= 1e-6 * float(copied.detach().abs().max())


def regrouped(optimizer: Optimizer, parameters: list[torch.Tensor]) -> list[dict[str, Any]]:
    """Return the optimizer's groups with other parameters in the place of its own."""
    others = iter(parameters)
    return [
        {"params": [next(others) for _ in group["params"]], "weight_decay": group["weight_decay"]}
        for group in optimizer.param_groups
    ]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_how_a_step_is_computed_goes_by_the_device_that_a_run_goes_on_on(name: Any) -> None:
    """A checkpoint says how it was done where it comes from; its rates and its state are kept."""
    learner = BYOL(tiny_net(), 32, None, 8, 16)
    settings = OptimizerSettings(name, 0.1, 1e-4, decay_all=False, warmup_steps=0, total_steps=3)
    module = Pretraining(learner, torch.nn.Identity(), settings, BatchPlan(4, 2))
    optimizer: Any = module.configure_optimizers()
    for parameter in learner.online_parameters():
        parameter.grad = torch.ones_like(parameter)
    module.optimizer_step(0, 0, optimizer)
    saved = deepcopy(checkpoint_of(module, optimizer, {}, {}, 0.0))
    for group in saved["optimizer"]["param_groups"]:
        group["fused"] = not group["fused"]
    there: Any = module.configure_optimizers()
    ways = [group["fused"] for group in there.param_groups]
    restore(module, there, saved)
    assert [group["fused"] for group in there.param_groups] == ways
    for state, same in zip(there.state.values(), optimizer.state.values(), strict=True):
        assert state.keys() == same.keys() and all(torch.equal(state[key], same[key]) for key in state)
    assert [group["lr"] for group in there.param_groups] == [group["lr"] for group in optimizer.param_groups]
