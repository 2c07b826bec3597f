"""Weighted k-nearest-neighbour classification (Wu et al. 2018, arXiv 1805.01978, section 3.4)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from byol.evaluation.problem import Outcome, Problem

TEMPERATURE = 0.1
"""T of the votes' weights exp(cos/T)."""
_SIMILARITIES = 2**25  # at most that many at a time: 128 MiB
_COLUMNS = 512  # of them that a CPU computes at a time: what a product reads and writes stays in its caches
_SMALLEST_GROUP, _LARGEST_GROUP = 4, 8


def default_neighbours(count: int) -> int:
    """Return k: 200 as published, 20 where there are fewer than 10,000 labelled vectors, or all of fewer."""
    return 200 if count >= 10_000 else min(20, count)


def knn(problem: Problem, drawn: Tensor | None = None, device: torch.device | str = "cpu") -> Outcome:
    """Score queries by `default_neighbours` among all labelled vectors, or the `drawn` ones alone.

    Args:
        problem: vectors and queries.
        drawn: indices of the vectors whose labels may be read; None: all.
        device: where to compute.
    """
    vectors, labels = problem.vectors, problem.labels
    if drawn is not None:
        vectors, labels = vectors[drawn], labels[drawn]
    k = default_neighbours(len(vectors))
    scores = knn_scores(
        vectors.to(device), labels, problem.queries.to(device), k, TEMPERATURE, problem.num_classes
    )
    return Outcome(scores.cpu(), {"k": k, "temperature": TEMPERATURE})


def knn_scores(
    train: Tensor, train_labels: Tensor, queries: Tensor, k: int, temperature: float, num_classes: int
) -> Tensor:
    """Return for each query the summed votes exp(cos/T) of its k nearest vectors, by class.

    Votes of one query are divided by its nearest neighbour's, which changes no comparison within
    the row and keeps any temperature from overflowing.

    Args:
        train: [N,D].
        train_labels: [N] int64 in 0..num_classes-1.
        queries: [M,D] on the same device.
        k: 1..N.
        temperature: above 0.
        num_classes: K.

    Returns:
        [M,K] float32, each in 0..k.
    """
    bank, labels = F.normalize(train.float()), train_labels.to(train.device)
    rows = max(1, _SIMILARITIES // max(1, len(bank)))
    # One buffer for all: getting its memory anew costs a CPU a fifth of the product's time.
    buffer = bank.new_empty(min(rows, len(queries)), len(bank))
    scores = []
    for chunk in F.normalize(queries.float()).split(rows):
        similarity, nearest = largest(similarities(chunk, bank, buffer[: len(chunk)]), k)  # [m,k]
        votes = ((similarity - similarity.amax(dim=1, keepdim=True)) / temperature).exp()
        empty = votes.new_zeros(len(chunk), num_classes)
        scores.append(empty.scatter_add_(1, labels[nearest], votes))  # [m,K]
    return torch.cat(scores)  # [M,K]


def similarities(queries: Tensor, bank: Tensor, out: Tensor) -> Tensor:
    """Return queries [m,D] times bank [N,D] transposed, written into `out` [m,N], float32."""
    columns = _COLUMNS if out.device.type == "cpu" else len(bank)
    for vectors, block in zip(bank.split(columns), out.split(columns, dim=1), strict=True):
        torch.mm(queries, vectors.T, out=block)
    return out


def largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of each row [M,N] and their places, [M,k] each, in no order.

    As `topk`, but up to five times as fast where k is small beside N. Cut a row into groups: the k largest
    lie in the k groups with the largest maxima, since each of these holds a number that no other group
    exceeds. The maxima are searched likewise.
    """
    depth = min(math.isqrt(values.shape[1] // k), _LARGEST_GROUP)  # numbers a group
    if depth < _SMALLEST_GROUP:
        return values.topk(k, dim=1, sorted=False)
    groups = values.shape[1] // depth
    in_groups = groups * depth
    _, chosen = largest(values[:, :in_groups].view(len(values), depth, groups).amax(dim=1), k)  # [M,k] groups
    device = values.device
    members = chosen[:, None] + torch.arange(0, in_groups, groups, device=device)[:, None]  # [M,depth,k]
    left_over = torch.arange(in_groups, values.shape[1], device=device).expand(len(values), -1)
    places = torch.cat([members.flatten(1), left_over], dim=1)
    best, at = values.gather(1, places).topk(k, dim=1, sorted=False)  # [M,k]
    return best, places.gather(1, at)
