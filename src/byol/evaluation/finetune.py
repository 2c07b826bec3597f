"""Fine-tuning (BYOL, appendix C.2): the whole network learns from labels; held-out ones choose how."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from byol.data.images import Subset
from byol.data.splits import holdout_split
from byol.errors import UserError
from byol.evaluation.classifier import Classifier
from byol.evaluation.problem import Metric, accuracy
from byol.evaluation.supervised import (
    Setting,
    Supervision,
    batch_norm_momentum,
    batch_size,
    steps_per_epoch,
)
from byol.weights import all_finite

RATES = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Base rates per 256 images; with `EPOCHS` the grid of the paper for few labels (appendix C)."""
EPOCHS = (30, 50)
HELD_OF_FEW = 0.2
"""Share of few labels on which settings are chosen."""

Report = Callable[[str], None]
"""Takes a line about a fit that has ended."""


@dataclass(frozen=True)
class Trial:
    """What a setting reached on held-out images."""

    setting: Setting
    accuracy: float
    """By the metric that is compared, 0-1; 0 where the fit diverged."""
    loss: float
    """Mean cross-entropy; infinite where the fit diverged."""


def finetune(
    supervision: Supervision,
    fit: Tensor,
    choice: Tensor,
    grid: Sequence[Setting],
    report: Report,
    metric: Metric = accuracy,
) -> tuple[Classifier, dict[str, Any]]:
    """Choose a setting on the images at `choice`, then fit those at `fit` and `choice` together.

    No other label is read. All fits start from the same weights and end with their last epoch. Where
    nothing is held out, the largest rate with the most epochs is taken: with so few images even they
    move the network little, because rates are per 256 images.

    Args:
        supervision: the labelled images and the network.
        fit: indices of the images that are fitted while settings are compared.
        choice: indices of those on which they are compared; may be empty.
        grid: the settings; a single one is taken without a comparison.
        report: gets a line after each fit.
        metric: by which settings are compared.

    Returns:
        The network after its last epoch, and what it was fitted with, for results.json.

    Raises:
        UserError: there are fewer than two images, or the last fit diverged.
    """
    everything = torch.cat([fit, choice]).sort().values
    if len(everything) < 2:
        raise UserError("fine-tuning needs at least two labelled images")
    compared = grid if len(grid) > 1 and len(choice) > 0 else ()
    trials = [_tried(supervision, fit, choice, setting, report, metric) for setting in compared]
    largest = max(grid, key=lambda setting: (setting.lr, setting.epochs))
    chosen = best(trials) if trials else largest
    if trials and chosen.lr == largest.lr > min(setting.lr for setting in grid):
        report("the largest rate did best: larger --finetune-rates may do better")
    start = time.perf_counter()
    classifier = supervision.fitted(everything, chosen)
    report(f"{_described(chosen, len(everything))}, the last fit ({time.perf_counter() - start:.0f} s)")
    if not all_finite(classifier):
        raise UserError(
            f"fine-tuning diverged with a rate of {chosen.lr:g}: give lower --finetune-rates "
            "(or the weights were broken before)"
        )
    return classifier, _settings(supervision, chosen, len(everything), grid, trials)


def divided(labels: Tensor, drawn: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Divide few drawn labels into those that are fitted and those on which settings are chosen.

    A fifth is held out, stratified, and at least one image, but never the only one of a class. Where
    each class has but one, nothing is held out.

    Args:
        labels: [N]; only those of `drawn` are read.
        drawn: indices of the labels that may be read.
        seed: decides which are held out.
    """
    own = labels[drawn]
    spared = len(own) - len(own.unique())
    count = min(spared, max(1, round(HELD_OF_FEW * len(own))))
    fit, choice = holdout_split(len(own), own, count / len(own), seed)
    return drawn[fit], drawn[choice]


def best(trials: Sequence[Trial]) -> Setting:
    """Return the most accurate setting; among equals the one of the smallest loss, then the first.

    Few held-out images leave many equals.
    """
    return max(trials, key=lambda trial: (trial.accuracy, -trial.loss)).setting


def _tried(
    supervision: Supervision, fit: Tensor, choice: Tensor, setting: Setting, report: Report, metric: Metric
) -> Trial:
    start = time.perf_counter()
    held = Subset(supervision.images, choice)
    assert held.labels is not None
    scores = supervision.scores(supervision.fitted(fit, setting), held)
    loss = float(F.cross_entropy(scores, held.labels))
    trial = Trial(setting, metric(scores, held.labels), loss)
    if not math.isfinite(loss):
        trial = Trial(setting, 0.0, math.inf)
    report(
        f"{_described(setting, len(fit))}, {trial.accuracy:.1%} of {len(choice)} held-out images "
        f"({time.perf_counter() - start:.0f} s)"
    )
    return trial


def _described(setting: Setting, count: int) -> str:
    return f"{count} labels, lr {setting.lr:g}, {setting.epochs} epochs"


def _settings(
    supervision: Supervision, chosen: Setting, count: int, grid: Sequence[Setting], trials: Sequence[Trial]
) -> dict[str, Any]:
    reached = {trial.setting: trial.accuracy for trial in trials}
    largest = supervision.largest_batch
    return {
        "lr": chosen.lr,
        "epochs": chosen.epochs,
        "batch_size": batch_size(count, largest),
        "bn_momentum": batch_norm_momentum(steps_per_epoch(count, largest)),
        "freeze": list(supervision.freeze),
        "grid": [{"lr": s.lr, "epochs": s.epochs, "held_out": reached.get(s)} for s in grid],
    }
