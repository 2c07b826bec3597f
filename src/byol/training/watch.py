"""What is watched during training: the loss, whether it is finite, and whether the features collapse."""

from typing import Any

import torch
from torch import Tensor, nn

from byol.config import Normalization
from byol.core.losses import cosine
from byol.evaluation.monitor import effective_rank, std_of_normalized
from byol.types import StepOutput

# Of the healthy 1/sqrt(d). Measured on digits and CIFAR-10 (docs/log.md): with batch normalisation healthy
# runs stay above 0.7, and runs without a predictor fall to 0.04 to 0.27. Without batch statistics healthy
# ones dip to 0.03 to 0.15 early, and recover; those without a predictor stay at 0.12 to 0.21.
_COLLAPSED_STD: dict[Normalization, float] = {"batch": 0.3, "group": 0.2}
_RECOVERY = 1.25
_RECORDS = 3
"""Fewer do not tell where the spread is going."""
_RANK_ROWS = 512


class Watch(nn.Module):
    """Sums kept on the device between two log lines, so that a step never waits for the host.

    They are buffers: a checkpoint holds them, and a resumed run logs what an uninterrupted one does.
    """

    loss_sum: Tensor
    batches: Tensor
    nonfinite: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("loss_sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("nonfinite", torch.zeros((), dtype=torch.bool))
        self.latest: StepOutput | None = None

    def see(self, output: StepOutput) -> None:
        """Take in one micro-batch."""
        loss = output.loss.detach()
        self.loss_sum += loss
        self.batches += 1
        self.nonfinite |= ~torch.isfinite(loss)
        self.latest = output

    def summary(self) -> dict[str, Any]:
        """Return the mean loss since the last summary and the state of the latest projections."""
        assert self.latest is not None
        projection, target = self.latest.projection.float(), self.latest.target.float()
        width = projection.shape[1]
        record = {
            "loss": float(self.loss_sum / self.batches),
            "std": std_of_normalized(projection) * width**0.5,
            "rank": effective_rank(projection[:_RANK_ROWS]),
            "cosine": float(cosine(projection, target).mean()),
        }
        self.loss_sum.zero_()
        self.batches.zero_()
        return record


def has_collapsed(spreads: dict[int, float], normalization: Normalization) -> bool:
    """Say whether the latest spread of projections is that of a collapsed learner.

    Without batch statistics a low spread that rises is no collapse: one that has risen by a quarter over
    the second half of all steps so far. Before three records lie in that half, none is.

    Args:
        spreads: over the healthy 1/sqrt(d), by step, in order.
        normalization: of the learner.
    """
    step, latest = next(reversed(spreads.items()))
    if latest >= _COLLAPSED_STD[normalization]:
        return False
    if normalization == "batch":
        return True
    recent = [spread for earlier, spread in spreads.items() if 2 * earlier >= step]
    return len(recent) >= _RECORDS and latest < _RECOVERY * min(recent)


def collapse_message(std: float, tau: float | None) -> str:
    """Return what to tell about collapsed projections: cause and remedy."""
    causes = "a learning rate too high (halve --base-lr), or batches too small for batch normalisation"
    if tau is not None:
        causes += ", or a target that moves too fast or not at all (--tau 0.97 to 0.99 suits short runs)"
    return (
        f"the features have collapsed: projections of different images differ by {std:.3f} of the healthy "
        f"spread. Usual causes: a learner without predictor, {causes}"
    )
