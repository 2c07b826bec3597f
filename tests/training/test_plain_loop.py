"""A run of `byol pretrain` is the loop of the paper's algorithm 1, written out here, weight by weight."""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import byol
from byol.core.learner import BYOL
from byol.data.batches import BatchPlan
from byol.rundir import RunDirectory
from byol.training import session
from byol.training.building import build_module
from byol.training.checkpoint import load
from tests.training.whole_run import plain_views, same_everywhere

STEPS, BATCH, WARMUP, PEAK, TAU = 7, 16, 2, 0.4, 0.9
SETTINGS: dict[str, Any] = {
    "backbone": "resnet8_16",
    "stem": "small",
    "projection_size": 8,
    "projection_hidden_size": 24,
    "batch_size": BATCH,
    "epochs": f"{STEPS}st",
    "warmup": f"{WARMUP}st",
    "optimizer": "sgd",
    "base_lr": PEAK * 256 / BATCH,
    "weight_decay": 0,
    "tau": TAU,
    "checkpoint_every": "0",
    "logger": "none",
}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_ends_where_the_plain_loop_ends(
    accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, with the views left to no chance; online and target network, heads, running statistics."""
    learners: list[BYOL] = []

    def watched(*arguments: Any) -> Any:
        module = build_module(*arguments)
        assert isinstance(module.learner, BYOL)
        learners.append(deepcopy(module.learner).double())
        return module

    same_everywhere(monkeypatch.setattr)
    monkeypatch.setattr(session, "build_module", watched)
    images = torch.randint(0, 256, (50, 3, 16, 16), dtype=torch.uint8)
    run = byol.pretrain(data=images, out=str(tmp_path / "run"), accumulate=accumulate, **SETTINGS)
    (learner,) = learners
    before = deepcopy(learner.state_dict())
    train_plainly(learner, images, BatchPlan(len(images), BATCH, accumulate))
    found, expected = load(RunDirectory(run.path).last_checkpoint)["learner"], learner.state_dict()
    for name in expected.keys() - {"target.step"}:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-12, msg=name)
    moved = [name for name in expected if not torch.allclose(before[name], expected[name], rtol=1e-3)]
    assert len(moved) > 0.9 * len(expected), "or this test compares nothing"


def train_plainly(learner: BYOL, images: Tensor, plan: BatchPlan) -> None:
    """Algorithm 1: both directions of a batch together, SGD with momentum 0.9, then the moving average."""
    assert learner.target is not None and learner.predictor is not None
    weights = list(learner.online_parameters())
    momenta = [torch.zeros_like(weight) for weight in weights]
    for step in range(STEPS):
        losses = []
        for micro in range(plan.accumulate):
            views = plain_views(images[plan.indices(step * plan.accumulate + micro)])
            predictions = [learner.predictor(learner.online(view)) for view in views]
            with torch.no_grad():
                targets = [learner.target(view) for view in views]
            cosines = [F.cosine_similarity(p, t) for p, t in zip(predictions, reversed(targets), strict=True)]
            losses.append(sum(2 - 2 * cosine for cosine in cosines).mean())
        gradients = torch.autograd.grad(sum(losses) / plan.accumulate, weights)
        progress = (step - WARMUP) / (STEPS - WARMUP)
        rate = PEAK * (step / WARMUP if step < WARMUP else (1 + math.cos(math.pi * progress)) / 2)
        tau = 1 - (1 - TAU) * (math.cos(math.pi * step / STEPS) + 1) / 2
        with torch.no_grad():
            for weight, momentum, gradient in zip(weights, momenta, gradients, strict=True):
                weight -= rate * momentum.mul_(0.9).add_(gradient)
            average(learner, tau)


def average(learner: BYOL, tau: float) -> None:
    """Move the target's weights towards the online network's of the same names."""
    assert learner.target is not None
    online = dict(learner.online.named_parameters())
    for name, weight in learner.target.network.named_parameters():
        weight.copy_(tau * weight + (1 - tau) * online[name])
