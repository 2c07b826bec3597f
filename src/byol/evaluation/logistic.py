"""Multinomial logistic regression by L-BFGS, in scikit-learn's terms and faster.

The objective is scikit-learn's: C * (sum of cross-entropies) + |W|^2 / 2, the bias free. BYOL's
transfer protocol is the same with other vectors and another range, written with l2 = 1 / C. What makes it
quick is a change of variables: along the principal axes of the vectors, scaled by the curvature
that the objective has there, the problem is round, and a few dozen passes are enough where several
hundred were needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from byol.evaluation.problem import Metric, Outcome, Problem, accuracy

FEW_LABELS_C = 0.1
C_GRID = tuple(10 ** (exponent / 2) for exponent in range(-8, 3))
"""1e-4 to 10, two per decade. Vectors are standardised, so that the range need not be as wide as
`L2_GRID`."""
L2_GRID = tuple(10 ** (-6 + 11 * step / 44) for step in range(45))
"""1e-6 to 1e5, four per decade: BYOL's transfer protocol (appendix D), for vectors of any scale."""
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-6}
"""On the largest element of the gradient, in round variables."""
_ITERATIONS = 1000
_LOGITS = 2**27
"""At a time: 1 GiB in double precision, and two more of it on the way."""


@dataclass(frozen=True)
class Standardization:
    """Per-dimension mean [D] and scale [D]."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> Self:
        """Measure vectors [N,D]. A dimension that is constant but for rounding keeps its scale."""
        std, mean = torch.std_mean(vectors, dim=0, correction=0)
        return cls(mean, torch.where(std > 1e-6 * mean.abs(), std, 1.0))

    @classmethod
    def centring(cls, vectors: Tensor) -> Self:
        """Measure the mean only. The bias is free and takes it up, so that the model is that of the
        vectors as they are; it is found in fewer passes."""
        mean = vectors.mean(dim=0)
        return cls(mean, torch.ones_like(mean))

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return vectors [N,D] with the mean subtracted and divided by the scale."""
        return (vectors - self.mean) / self.scale


Measuring = Callable[[Tensor], Standardization]
"""What of vectors [N,D] is measured: `Standardization.of` or `Standardization.centring`."""


def logistic(problem: Problem, device: torch.device | str = "cpu") -> Outcome:
    """Choose C on `problem.choice`, fit all vectors with it, score the queries.

    Vectors are standardised with the statistics of what is fitted. Equally good: the smaller C.

    Raises:
        UserError: nothing is left to choose on.
    """
    c, scores = _chosen(problem, device, C_GRID, Standardization.of)
    return Outcome(scores, {"C": c})


def transfer_logistic(problem: Problem, device: torch.device | str = "cpu") -> Outcome:
    """Choose l2 among the 45 of `L2_GRID` on `problem.choice`, refit all vectors, score the queries.

    BYOL's linear transfer (appendix D, after Kornblith et al., arXiv 1805.08974): vectors are not
    standardised. The paper does not write its objective down; read as the sum of cross-entropies +
    l2/2 |W|^2, as reproductions with scikit-learn do, it is ours with C = 1 / l2. Equally good: the
    larger l2.

    Raises:
        UserError: nothing is left to choose on.
    """
    by_c = {1 / l2: l2 for l2 in reversed(L2_GRID)}
    c, scores = _chosen(problem, device, tuple(by_c), Standardization.centring)
    return Outcome(scores, {"l2": by_c[c], "grid": len(L2_GRID)})


def _chosen(
    problem: Problem, device: torch.device | str, grid: Sequence[float], standardization: Measuring
) -> tuple[float, Tensor]:
    """Return the C chosen, and the scores [M,K] of the queries."""
    problem.check_choice()
    device = _with_double_precision(device)
    vectors, labels = problem.vectors.to(device), problem.labels.to(device)
    fit, choice = problem.fit.to(device), problem.choice.to(device)
    c = choose_c(
        vectors[fit],
        labels[fit],
        vectors[choice],
        labels[choice],
        problem.num_classes,
        grid,
        problem.metric,
        standardization,
    )
    return c, _query_scores(problem, vectors, labels, c, standardization(vectors))


def few_label_logistic(problem: Problem, drawn: Tensor, device: torch.device | str = "cpu") -> Outcome:
    """Fit the `drawn` vectors only, with `FEW_LABELS_C`; no other label is read.

    Vectors are standardised with the statistics of all of `problem.vectors`, without their labels.
    """
    device = _with_double_precision(device)
    vectors = problem.vectors.to(device)
    chosen, labels = vectors[drawn.to(device)], problem.labels[drawn].to(device)
    scores = _query_scores(problem, chosen, labels, FEW_LABELS_C, Standardization.of(vectors))
    return Outcome(scores, {"C": FEW_LABELS_C})


def _query_scores(
    problem: Problem, vectors: Tensor, labels: Tensor, c: float, standard: Standardization
) -> Tensor:
    """Fit vectors [N,D] in double precision, as a number that is reported deserves; return the scores [M,K]
    of the queries."""
    model = LogisticRegression.fitted(standard(vectors).double(), labels, problem.num_classes, c)
    return model.scores(standard(problem.queries.to(vectors.device)).double()).float().cpu()


def _with_double_precision(device: torch.device | str) -> torch.device | str:
    """Return the device, or the CPU in the place of Apple's GPUs, which have none."""
    return "cpu" if torch.device(device).type == "mps" else device


def choose_c(
    vectors: Tensor,
    labels: Tensor,
    held_vectors: Tensor,
    held_labels: Tensor,
    num_classes: int,
    grid: Sequence[float] = C_GRID,
    metric: Metric = accuracy,
    standardization: Measuring = Standardization.of,
) -> float:
    """Return the C of an ascending `grid` that is best on the held vectors by `metric`; ties: the first."""
    standard = standardization(vectors)
    axes = PrincipalAxes.of(standard(vectors))
    held = standard(held_vectors)
    best, best_value = grid[0], -1.0
    start: Tensor | None = None
    for c in grid:
        start = axes.fit(labels, num_classes, c, start)
        reached = metric(axes.regression(start).scores(held), held_labels)
        if reached > best_value:
            best, best_value = c, reached
    return best


@dataclass(frozen=True)
class LogisticRegression:
    """A fitted model: logits are vectors @ weight.T + bias."""

    weight: Tensor
    """[K,D]"""
    bias: Tensor
    """[K]"""

    @classmethod
    def fitted(cls, vectors: Tensor, labels: Tensor, num_classes: int, c: float) -> "LogisticRegression":
        """Fit vectors [N,D] and labels [N] in 0..num_classes-1, in the precision of the vectors."""
        axes = PrincipalAxes.of(vectors)
        return axes.regression(axes.fit(labels, num_classes, c))

    def scores(self, vectors: Tensor) -> Tensor:
        """Return logits [M,K] of vectors [M,D]."""
        return torch.addmm(self.bias, vectors, self.weight.T)


@dataclass(frozen=True)
class PrincipalAxes:
    """Vectors turned onto their principal axes: at most as many as there are vectors."""

    axes: Tensor
    """[D,R] orthonormal columns."""
    turned: Tensor
    """[N,R] the vectors along them."""
    variance: Tensor
    """[R] mean square along each axis."""

    @classmethod
    def of(cls, vectors: Tensor) -> Self:
        """Turn vectors [N,D]. The best weights lie in their span, so that fewer than D may do."""
        if len(vectors) < vectors.shape[1]:
            axes = torch.linalg.svd(vectors, full_matrices=False).Vh.T  # [D,N]
        else:
            axes = torch.linalg.eigh(vectors.T @ vectors).eigenvectors  # [D,D]
        turned = vectors @ axes
        return cls(axes, turned, turned.square().mean(dim=0))

    def regression(self, parameters: Tensor) -> LogisticRegression:
        """Turn parameters [K,R+1], as `fit` returns them, back to the original dimensions."""
        return LogisticRegression(parameters[:, :-1] @ self.axes.T, parameters[:, -1])

    def fit(self, labels: Tensor, num_classes: int, c: float, start: Tensor | None = None) -> Tensor:
        """Minimise the objective from `start`; return [K,R+1], the bias in the last column."""
        penalty = 1 / (c * len(labels))
        # Near zero weights every class has probability 1/K: the cross-entropy curves by variance / K.
        curvature = torch.cat(
            [self.variance / num_classes + penalty, self.variance.new_ones(1) / num_classes]
        )
        scale = curvature.rsqrt()  # [R+1]
        initial = self.variance.new_zeros((num_classes, len(scale))) if start is None else start / scale
        objective = _Objective(self.turned, labels, penalty, scale, initial.clone())
        optimizer = torch.optim.LBFGS(
            [objective.parameters],
            max_iter=_ITERATIONS,
            max_eval=2 * _ITERATIONS,
            tolerance_grad=_TOLERANCE[self.turned.dtype],
            tolerance_change=0.0,
            history_size=30,
            line_search_fn="strong_wolfe",
        )
        optimizer.step(objective)
        return objective.parameters * scale


class _Objective:
    """Mean cross-entropy + penalty/2 |W|^2 of scaled parameters, with its gradient in closed form.

    Classes come first, [K,N]: softmax over the leading dimension is ten times as fast on a CPU.
    """

    def __init__(
        self, vectors: Tensor, labels: Tensor, penalty: float, scale: Tensor, parameters: Tensor
    ) -> None:
        self.vectors, self.labels, self.penalty, self.scale = vectors, labels, penalty, scale
        self.parameters = parameters  # [K,R+1]

    def __call__(self) -> float:
        unscaled = self.parameters * self.scale
        weight = unscaled[:, :-1]
        loss = self.penalty / 2 * weight.square().sum()
        gradient = torch.cat([self.penalty * weight, torch.zeros_like(weight[:, :1])], dim=1)  # [K,R+1]
        rows = max(1, _LOGITS // len(weight))
        for vectors, labels in zip(self.vectors.split(rows), self.labels.split(rows), strict=True):
            part_loss, part_gradient = self._part(unscaled, vectors, labels)
            loss, gradient = loss + part_loss, gradient + part_gradient
        self.parameters.grad = gradient * self.scale
        return float(loss)

    def _part(self, unscaled: Tensor, vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return what some vectors [n,R] add to the mean cross-entropy and to its gradient [K,R+1]."""
        count = len(self.labels)
        logits = unscaled[:, :-1] @ vectors.T + unscaled[:, -1:]  # [K,n]
        log_total = logits.logsumexp(dim=0)  # [n]
        own = logits.gather(0, labels[None])[0]  # [n]
        residual = (logits - log_total).exp_()
        residual.scatter_add_(0, labels[None], -torch.ones_like(own)[None])
        residual /= count
        gradient = torch.cat([residual @ vectors, residual.sum(dim=1, keepdim=True)], dim=1)
        return (log_total - own).sum() / count, gradient
