"""What a protocol is given - no labels of the scored split among it - and what it gives back."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from byol.errors import UserError


@dataclass(frozen=True)
class Problem:
    """One classification on fixed vectors."""

    vectors: Tensor
    """[N,D] float32: everything that may be fitted."""
    labels: Tensor
    """[N] int64."""
    fit: Tensor
    """Indices into `vectors` of what is fitted while settings are chosen."""
    choice: Tensor
    """Indices of the other ones, on which settings are chosen."""
    queries: Tensor
    """[M,D] float32: what is scored."""
    num_classes: int

    def check_choice(self) -> None:
        """Raise UserError where no image is left to choose settings on."""
        if len(self.choice) == 0:
            raise UserError(
                f"{len(self.vectors)} labelled images are too few to keep some for choosing settings"
            )


@dataclass(frozen=True)
class Outcome:
    """The scores that a protocol gives the queries."""

    scores: Tensor
    """[M, num_classes]: the larger, the likelier."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What it was done with, for results.json."""


def accuracy(scores: Tensor, labels: Tensor, top: int = 1) -> float:
    """Return the fraction of rows [M,K] whose label [M] is among the `top` highest scores.

    Scores that are not finite count as the lowest. Nothing is asked of an empty set: 0.
    """
    if len(labels) == 0:
        return 0.0
    finite = scores.nan_to_num(nan=-torch.inf, posinf=-torch.inf)
    best = finite.topk(top, dim=1).indices  # [M,top]
    return float((best == labels.to(best.device)[:, None]).any(dim=1).double().mean())
