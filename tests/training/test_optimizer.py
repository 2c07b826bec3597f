"""What the optimizer of a run holds."""

from typing import Literal

import pytest
import torch
import torchvision

from byol.core.learner import BYOL
from byol.training.module import OptimizerSettings, build_optimizer


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
