"""What an optimizer step costs, from what it does: operations, bytes, and a fixed amount.

seconds = operations / rate + bytes / bandwidth + fixed

Operations and bytes are counted, operator by operator, in a real step; rate, bandwidth and the fixed amount
are fitted to measured steps. The bytes are what every operator reads and writes: no cache, no fusion.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from byol.core.learner import BYOL


@dataclass(frozen=True)
class Amount:
    """What is to be done."""

    operations: float
    bytes: float
    operators: float = 0
    """Calls that reach the device's library: each costs at least a launch."""

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            self.operations + other.operations, self.bytes + other.bytes, self.operators + other.operators
        )

    def __mul__(self, factor: float) -> "Amount":
        return Amount(factor * self.operations, factor * self.bytes, factor * self.operators)


@dataclass(frozen=True)
class StepWork:
    """A step of any batch: per step (weights, optimizer, average), and per image."""

    per_step: Amount
    per_image: Amount
    parameters: int
    """That are trained: as many gradients."""
    batch_norms: int

    def of(self, batch: int) -> Amount:
        """Return the work of a step on so many images."""
        return self.per_step + self.per_image * batch


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of what operators take and give; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.operators = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        if not function.is_view and "empty" not in str(function):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
            self.operators += 1
        return output


def step_work(net: nn.Module, size: int, hidden: int | None = None) -> StepWork:
    """Count a step of SGD at two small batches; what does not grow between them is per step."""
    learner = BYOL(net, size, hidden_layer=None, projection_hidden_size=hidden)
    learner.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(learner.online_parameters(), lr=0.0, momentum=0.9)
    _counted(learner, optimizer, size, 2)  # the first step makes the momentum
    two, four = (_counted(learner, optimizer, size, batch) for batch in (2, 4))
    per_image = (four + two * -1) * 0.5
    return StepWork(
        two + per_image * -2,
        per_image,
        sum(parameter.numel() for parameter in learner.online_parameters()),
        sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in learner.online.modules()) + 1,
    )


def _counted(learner: BYOL, optimizer: torch.optim.Optimizer, size: int, batch: int) -> Amount:
    device = next(learner.parameters()).device
    views = [_laid_out(torch.randn(batch, 3, size, size, device=device)) for _ in range(2)]
    with FlopCounterMode(display=False) as operations, _Traffic() as traffic:
        learner.compare_in_turn(*views).loss.backward()
        optimizer.step()
        learner.update_moving_average()
    return Amount(operations.get_total_flops(), traffic.bytes, traffic.operators)


def bytes_to_hold(net: nn.Module, size: int, batch: int, precision: str = "fp32") -> float:
    """Return the bytes that a step in turn must hold beyond weights, optimizer state and views.

    They are what the backward pass of one direction needs, each number once, and all gradients; recomputing
    nothing. Counted in float32 at two small batches; in bf16 what is kept for backward takes half.
    """
    learner = BYOL(net, size, hidden_layer=None)
    two, four = (_kept_for_backward(learner, size, count) for count in (2, 4))
    per_image = (four - two) / 2
    kept = two + (batch - 2) * per_image
    gradients = sum(parameter.nbytes for parameter in learner.online_parameters())
    return gradients + kept * (0.5 if precision == "bf16" else 1.0)


def _kept_for_backward(learner: BYOL, size: int, batch: int) -> int:
    view = _laid_out(torch.zeros(batch, 3, size, size, device=next(learner.parameters()).device))
    there = {t.untyped_storage().data_ptr() for t in (view, *learner.parameters(), *learner.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _ = learner.predictor(learner.online(view))  # what is returned holds the graph
    return sum(storage.nbytes() for storage in kept.values())


def _laid_out(views: Tensor) -> Tensor:
    """Return views as training hands them on: no network makes copies of them."""
    return views.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Rates:
    """What a machine does."""

    operations: float
    """Per second; infinite where the measured steps do not tell."""
    bytes: float
    fixed: float
    """Seconds a step."""

    def seconds(self, work: Amount) -> float:
        """Return the predicted time of a step."""
        return work.operations / self.operations + work.bytes / self.bytes + self.fixed


def fitted(works: Sequence[Amount], seconds: Sequence[float]) -> Rates:
    """Return the rates that predict measured steps with the smallest relative errors, none below zero."""
    taken = np.array(seconds)
    columns = np.array([[work.operations, work.bytes, 1.0] for work in works]) / taken[:, None]  # [N,3]
    scale = columns.max(axis=0)
    found = nnls(columns / scale, np.ones(len(taken)))[0] / scale
    operations, moved = (float("inf") if value == 0 else 1 / value for value in found[:2])
    return Rates(operations, moved, float(found[2]))
