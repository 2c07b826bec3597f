"""What a protocol is given - no labels of the scored split among it - what it gives back, and how
that is scored."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from byol.errors import UserError
from byol.evaluation.classifier import Classifier

Metric = Callable[[Tensor, Tensor], float]
"""From scores [M,K] and labels [M] to 0-1."""


def predicted(scores: Tensor, top: int = 1) -> Tensor:
    """Return the `top` classes of each row [M,K] with the highest scores, best first: [M,top] on the CPU.

    Scores that are not finite count as the lowest.
    """
    finite = scores.nan_to_num(nan=-torch.inf, posinf=-torch.inf)
    return finite.topk(top, dim=1).indices.cpu()


def accuracy(scores: Tensor, labels: Tensor, top: int = 1) -> float:
    """Return the fraction of rows [M,K] whose label [M] is among the `top` highest scores.

    Nothing is asked of an empty set: 0.
    """
    if len(labels) == 0:
        return 0.0
    return float((predicted(scores, top) == labels.cpu()[:, None]).any(dim=1).double().mean())


def mean_per_class(scores: Tensor, labels: Tensor) -> float:
    """Return the mean of the accuracies of each class, over the classes that occur in `labels` [M].

    Of the paper's transfer sets Aircraft, Pets, Caltech101 and Flowers are reported so (appendix D).
    An empty set: 0.
    """
    if len(labels) == 0:
        return 0.0
    labels = labels.cpu()
    right = (predicted(scores)[:, 0] == labels).double()
    support = torch.bincount(labels)
    occurs = support > 0
    return float((torch.bincount(labels, weights=right)[occurs] / support[occurs]).mean())


METRICS: dict[str, Metric] = {"top1": accuracy, "mean_per_class": mean_per_class}
"""By which settings can be chosen."""


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
    metric: Metric = accuracy
    """By which settings are chosen."""

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
    network: Classifier | None = None
    """What gave them, where it was fine-tuned."""
