"""The linear probe of BYOL (appendix C.1) on cached features, all learning rates in one pass."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from byol.evaluation.problem import Outcome, Problem
from byol.randomness import epoch_order

LEARNING_RATES = (30.0, 10.0, 3.0, 1.0, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01)
"""Base rates per 256 images: the paper's five, and wider ones. Theirs suit a ResNet-50's features;
the best rate goes with the inverse square of the features' scale, which differs between networks. On
digits an untrained ResNet-8 reaches 91 % of the hold-out with 3, and 83 % with the paper's largest."""
EPOCHS = 80
BATCH_SIZE = 1024

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
"""From an epoch, from 0, to batches of vectors [B,D] and labels [B]."""
Training = Callable[[Tensor], Batches]
"""From indices into `Problem.vectors` to the batches that train on them."""


@dataclass(frozen=True)
class Heads:
    """L linear classifiers side by side."""

    weight: Tensor
    """[L,K,D]"""
    bias: Tensor
    """[L,K]"""

    def scores(self, vectors: Tensor) -> Iterator[Tensor]:
        """Yield the logits [N,K] of each head."""
        for weight, bias in zip(self.weight, self.bias, strict=True):
            yield torch.addmm(bias, vectors, weight.T)


def linear(
    problem: Problem,
    *,
    epochs: int = EPOCHS,
    rates: Sequence[float] = LEARNING_RATES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    training: Training | None = None,
) -> Outcome:
    """Choose the learning rate on `problem.choice`, fit all vectors with it, score the queries.

    SGD with Nesterov momentum 0.9, no weight decay, cosine schedule without warm-up; the last epoch
    counts, never the best.

    Args:
        problem: clean vectors and queries.
        epochs: of each of the two fits.
        rates: base learning rates; the rate is base * batch / 256. Equally good: the first.
        seed: of the order in which images come.
        device: where to compute.
        training: where the batches of vectors come from; None: `problem.vectors`.

    Raises:
        UserError: nothing is left to choose on.
    """
    problem.check_choice()
    batches = training or clean_training(problem, seed, device)
    shape = (problem.num_classes, problem.vectors.shape[1])
    heads = fit_heads(batches(problem.fit), len(problem.fit), shape, rates, epochs, device)
    held, held_labels = problem.vectors[problem.choice].to(device), problem.labels[problem.choice]
    reached = [problem.metric(scores, held_labels) for scores in heads.scores(held)]
    rate = rates[reached.index(max(reached))]
    count = len(problem.vectors)
    final = fit_heads(batches(torch.arange(count)), count, shape, [rate], epochs, device)
    scores = next(final.scores(problem.queries.to(device)))
    return Outcome(scores.cpu(), {"lr": rate, "epochs": epochs, "batch_size": batch_size_for(count)})


def batch_size_for(count: int) -> int:
    """Return the paper's 1024, or a sixteenth of a small set: an epoch needs some steps."""
    return max(1, min(BATCH_SIZE, math.ceil(count / 16)))


def clean_training(problem: Problem, seed: int, device: torch.device | str) -> Training:
    """Return batches of the problem's own vectors, in an order that depends on seed and epoch."""

    def training(indices: Tensor) -> Batches:
        vectors, labels = problem.vectors[indices].to(device), problem.labels[indices].to(device)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for rows in full_batches(len(indices), seed, epoch):
                yield vectors[rows.to(device)], labels[rows.to(device)]

        return batches

    return training


def full_batches(count: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """Return an epoch's batches of indices: each of `count` once, the last batch has what is left over."""
    return epoch_order(count, seed, epoch).split(batch_size_for(count))


def fit_heads(
    batches: Batches,
    count: int,
    shape: tuple[int, int],
    rates: Sequence[float],
    epochs: int,
    device: torch.device | str = "cpu",
) -> Heads:
    """Train one classifier per learning rate on the same batches.

    Args:
        batches: of each epoch.
        count: images in an epoch.
        shape: classes K and width D.
        rates: base learning rates, L of them.
        epochs: how many.
        device: of the batches.
    """
    weight = torch.zeros((len(rates), *shape), device=device, requires_grad=True)  # [L,K,D]
    bias = torch.zeros((len(rates), shape[0]), device=device, requires_grad=True)  # [L,K]
    batch_size = batch_size_for(count)
    base = weight.detach().new_tensor(rates) * batch_size / 256
    optimizer = torch.optim.SGD([weight, bias], lr=1.0, momentum=0.9, nesterov=True)
    total, step = epochs * math.ceil(count / batch_size), 0
    for epoch in range(epochs):
        for vectors, labels in batches(epoch):
            optimizer.param_groups[0]["lr"] = (1 + math.cos(math.pi * step / total)) / 2
            optimizer.zero_grad()
            # Scaling a head's loss scales its steps: the gradient enters them linearly.
            (base * _losses(weight, bias, vectors, labels)).sum().backward()
            optimizer.step()
            step += 1
    return Heads(weight.detach(), bias.detach())


def _losses(weight: Tensor, bias: Tensor, vectors: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of each head [L]."""
    logits = F.linear(vectors, weight.flatten(0, 1), bias.flatten())  # [B,L*K]
    logits = logits.view(len(vectors), *bias.shape).transpose(1, 2)  # [B,K,L]
    targets = labels[:, None].expand(-1, bias.shape[0])  # [B,L]
    return F.cross_entropy(logits, targets, reduction="none").mean(dim=0)
