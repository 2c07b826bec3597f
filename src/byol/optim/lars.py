"""LARS, the optimizer of BYOL (arXiv 1708.03888; `optimizers.py` of the official code)."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling with momentum.

    For each parameter w with gradient g, in this order::

        g <- g + weight_decay w
        g <- g * trust_coefficient |w| / |g|      where the group has adapt=True; 1 where a norm is 0
        m <- momentum m + g
        w <- w - lr m

    Whether a group is adapted is its own flag `adapt`, never guessed from its weight decay.
    `byol.optim.groups.parameter_groups` makes a group of biases and norms with neither.

    Args:
        params: parameters or groups, each group on one device; a group may set `adapt`, `weight_decay`,
            `momentum`, `lr`.
        lr: learning rate, at least 0.
        momentum: 0 to 1.
        weight_decay: at least 0.
        trust_coefficient: eta, at least 0.
        adapt: scale by the ratio of norms.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        adapt: bool = True,
    ) -> None:
        # Written so that nan fails, too.
        if not (lr >= 0 and weight_decay >= 0 and trust_coefficient >= 0):
            raise ValueError(
                f"lr {lr}, weight_decay {weight_decay} and trust_coefficient {trust_coefficient} must be >= 0"
            )
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum is {momentum}, it must lie between 0 and 1")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapt": adapt,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        updates = torch._foreach_add([w.grad for w in weights], weights, alpha=group["weight_decay"])
        if group["adapt"]:
            ratios = _trust_ratios(weights, updates, group["trust_coefficient"])
            torch._foreach_mul_(updates, ratios)
        momenta = [self._momentum(weight) for weight in weights]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, updates)
        torch._foreach_add_(weights, momenta, alpha=-group["lr"])

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        return momentum


def _trust_ratios(weights: list[Tensor], updates: tuple[Tensor, ...], eta: float) -> tuple[Tensor, ...]:
    """Return eta |w| / |g| for each parameter, and 1 where either norm is 0."""
    w, g = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, updates))  # [P]
    usable = (w > 0) & (g > 0)
    return torch.where(usable, eta * w / torch.where(usable, g, 1.0), 1.0).unbind()
