"""One direction at a time: the sums of both at once, for half of what is held for backward."""

import copy
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from byol.core.learner import BYOL
from byol.types import StepOutput

MakeLearner = Callable[..., BYOL]
Views = tuple[Tensor, Tensor]


def gradients(learner: BYOL) -> list[Tensor]:
    found = [parameter.grad for parameter in learner.online_parameters()]
    assert all(grad is not None for grad in found)
    return [grad for grad in found if grad is not None]


def assert_same(
    learners: tuple[BYOL, BYOL], outputs: tuple[StepOutput, StepOutput], precision: torch.dtype | None
) -> None:
    one, other = outputs
    torch.testing.assert_close(one.loss, other.loss, rtol=1e-6, atol=0)
    for name in ("projection", "target", "representation"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    for one_grad, other_grad in zip(*map(gradients, learners), strict=True):
        if precision is None:
            assert torch.equal(one_grad, other_grad)
        else:  # both at once, autocast adds the directions in its own precision; in turn they add as floats
            assert (one_grad - other_grad).norm() <= 2**-7 * one_grad.norm() + 1e-6
    buffers = (dict(learner.named_buffers()) for learner in learners)
    assert all(map(torch.equal, *(found.values() for found in buffers)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalization": "group"},
        {"target_statistics": "average"},
        {"use_momentum": False},
        {"concatenate_views": True},
        {"simplicial_embeddings": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_loss_gradients_and_statistics_are_those_of_both_at_once(
    settings: dict[str, Any], precision: torch.dtype | None, make_learner: MakeLearner, two_views: Views
) -> None:
    together = make_learner(**settings)
    in_turn = copy.deepcopy(together)
    with torch.autocast("cpu", precision) if precision else nullcontext():
        outputs = together.compare(*two_views), in_turn.compare_in_turn(*two_views)
    for output in outputs:
        output.loss.backward()
    assert_same((together, in_turn), outputs, precision)


def test_shares_of_a_step_add_up(make_learner: MakeLearner) -> None:
    together = make_learner(normalization="group").double()
    in_turn = copy.deepcopy(together)
    first, second = torch.randn(2, 6, 3, 8, 8, dtype=torch.float64)
    together.compare(first, second).loss.backward()
    for part in range(3):
        rows = slice(2 * part, 2 * part + 2)
        (in_turn.compare_in_turn(first[rows], second[rows], 1 / 3).loss / 3).backward()
    for one, other in zip(gradients(together), gradients(in_turn), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_it_holds_half_for_backward(make_learner: MakeLearner) -> None:
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) for _ in range(8)))
    learner = make_learner(nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten()), hidden_layer=None)
    views = (torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8))
    together = most_held(lambda: learner.compare(*views).loss.backward())
    in_turn = most_held(lambda: learner.compare_in_turn(*views).loss.backward())
    assert in_turn < 0.55 * together


def most_held(step: Callable[[], None]) -> int:
    """Return the most bytes that autograd had saved at one time."""
    held = {"now": 0, "most": 0}

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            held["now"] += tensor.nbytes
            held["most"] = max(held.values())
            weakref.finalize(self, let_go, tensor.nbytes)

    def let_go(count: int) -> None:
        held["now"] -= count

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        step()
    assert held["now"] == 0
    return held["most"]


def test_its_parts_compiled_it_gives_the_same(make_learner: MakeLearner, two_views: Views) -> None:
    plain = make_learner()
    compiled = copy.deepcopy(plain)
    assert compiled.target is not None
    for part in (compiled.online, compiled.predictor, compiled.target):
        part.compile(backend="aot_eager", fullgraph=True)
    for learner in (plain, compiled):
        learner.compare_in_turn(*two_views).loss.backward()
    for one, other in zip(gradients(plain), gradients(compiled), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_in_lower_precision_it_goes_the_same_way(make_learner: MakeLearner) -> None:
    """bf16 has 8 bits: the loss agrees to one in a hundred, the gradient in its direction (a cosine of .96 to
    .99 by the seed; CPUs round differently)."""
    plain = make_learner()
    fast = copy.deepcopy(plain)
    views = torch.randn(2, 64, 3, 8, 8).unbind()
    losses = []
    for learner, precision in ((plain, None), (fast, torch.bfloat16)):
        with torch.autocast("cpu", precision) if precision else nullcontext():
            loss = learner.compare_in_turn(*views).loss
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    whole = [torch.cat([grad.flatten() for grad in gradients(learner)]) for learner in (plain, fast)]
    assert torch.cosine_similarity(*whole, dim=0) > 0.9
    assert all(grad.dtype == torch.float32 for grad in gradients(fast))
