from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from byol.errors import UserError
from byol.evaluation import logistic as module
from byol.evaluation.logistic import (
    C_GRID,
    L2_GRID,
    LogisticRegression,
    PrincipalAxes,
    Standardization,
    choose_c,
    few_label_logistic,
    logistic,
    transfer_logistic,
)
from byol.evaluation.problem import Problem, accuracy, mean_per_class


def digits_problem() -> Problem:
    images, labels = load_digits(return_X_y=True)
    vectors, targets = torch.from_numpy(images).float(), torch.from_numpy(labels)
    fit, choice = torch.arange(1000), torch.arange(1000, 1200)
    return Problem(vectors[:1200], targets[:1200], fit, choice, vectors[1200:], 10)


@pytest.mark.parametrize("c", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("count", [30, 600])
def test_probabilities_equal_scikit_learn(c: float, count: int) -> None:
    problem = digits_problem()
    standard = Standardization.of(problem.vectors[:count])
    vectors, queries = standard(problem.vectors[:count]).double(), standard(problem.queries).double()
    labels = problem.labels[:count]
    assert len(labels.unique()) == 10
    ours = LogisticRegression.fitted(vectors, labels, 10, c).scores(queries).softmax(dim=1).numpy()
    reference = Reference(C=c, tol=1e-9, max_iter=20000).fit(vectors.numpy(), labels.numpy())
    np.testing.assert_allclose(ours, reference.predict_proba(queries.numpy()), atol=1e-3)


def test_in_parts_it_is_the_same_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(90, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(90) % 4
    whole = LogisticRegression.fitted(vectors, labels, 4, 1.0)
    monkeypatch.setattr(module, "_LOGITS", 4 * 37)
    parts = LogisticRegression.fitted(vectors, labels, 4, 1.0)
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(parts.bias, whole.bias, rtol=1e-6, atol=1e-7)


def test_single_precision_is_close_too() -> None:
    problem = digits_problem()
    vectors = Standardization.of(problem.vectors)(problem.vectors)
    single, double = (
        LogisticRegression.fitted(v, problem.labels, 10, 0.1).scores(v).softmax(dim=1)
        for v in (vectors, vectors.double())
    )
    torch.testing.assert_close(single.double(), double, atol=2e-3, rtol=0)


def test_fewer_vectors_than_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(20, 300, generator=generator, dtype=torch.float64)
    labels = torch.arange(20) % 4
    queries = torch.randn(50, 300, generator=generator, dtype=torch.float64)
    ours = LogisticRegression.fitted(vectors, labels, 4, 0.1)
    reference = Reference(C=0.1, tol=1e-9, max_iter=5000).fit(vectors.numpy(), labels.numpy())
    np.testing.assert_allclose(
        ours.scores(queries).softmax(dim=1).numpy(), reference.predict_proba(queries.numpy()), atol=1e-4
    )


def test_standardization_equals_scikit_learn_and_spares_constants() -> None:
    vectors = digits_problem().vectors
    expected = StandardScaler().fit_transform(vectors.double().numpy())
    np.testing.assert_allclose(Standardization.of(vectors)(vectors).numpy(), expected, atol=1e-4)
    constant = torch.full((50, 3), 0.1)
    assert Standardization.of(constant)(constant).abs().max() < 1e-6
    rounded = torch.full((1000, 1), 1e4) + torch.randint(0, 2, (1000, 1)) * 2**-10  # neighbouring floats
    assert Standardization.of(rounded).scale == 1


def test_choice_equals_the_best_of_scikit_learn() -> None:
    problem = digits_problem()
    vectors, labels, fit, choice = problem.vectors, problem.labels, problem.fit, problem.choice
    standard = Standardization.of(vectors[fit])
    x, held = standard(vectors[fit]).numpy(), standard(vectors[choice]).numpy()
    grid = (1e-4, 1e-2, 1.0)
    scores = [
        Reference(C=c, max_iter=2000, tol=1e-6).fit(x, labels[fit]).score(held, labels[choice]) for c in grid
    ]
    chosen = choose_c(vectors[fit], labels[fit], vectors[choice], labels[choice], 10, grid)
    assert chosen == grid[int(np.argmax(scores))]


def test_the_grid_is_two_per_decade() -> None:
    np.testing.assert_allclose(C_GRID, np.logspace(-4, 1, 11))


def test_fits_everything_with_the_chosen_c() -> None:
    problem = digits_problem()
    outcome = logistic(problem)
    assert outcome.settings["C"] in C_GRID
    scaler = StandardScaler().fit(problem.vectors.double().numpy())
    reference = Reference(C=outcome.settings["C"], tol=1e-9, max_iter=20000)
    reference.fit(scaler.transform(problem.vectors.double().numpy()), problem.labels.numpy())
    expected = reference.predict_proba(scaler.transform(problem.queries.double().numpy()))
    # Some queries lie 50 standard deviations out, and the chosen C is among the larger ones.
    np.testing.assert_allclose(outcome.scores.softmax(dim=1).numpy(), expected, atol=5e-3)


def test_queries_do_not_influence_the_choice() -> None:
    problem = digits_problem()
    other = replace(problem, queries=torch.randn(7, 64))
    assert logistic(problem).settings == logistic(other).settings


def test_few_labels_read_nothing_else() -> None:
    problem = digits_problem()
    drawn = torch.cat([torch.nonzero(problem.labels == digit)[:5, 0] for digit in range(10)])
    poisoned = torch.full_like(problem.labels, -(10**9))
    poisoned[drawn] = problem.labels[drawn]
    ours = few_label_logistic(problem, drawn)
    assert torch.equal(ours.scores, few_label_logistic(replace(problem, labels=poisoned), drawn).scores)
    assert ours.settings == {"C": 0.1}
    # Standardised with all vectors, fitted on the drawn ones.
    scaler = StandardScaler().fit(problem.vectors.double().numpy())
    reference = Reference(C=0.1, tol=1e-9, max_iter=20000)
    reference.fit(scaler.transform(problem.vectors[drawn].double().numpy()), problem.labels[drawn].numpy())
    expected = reference.predict_proba(scaler.transform(problem.queries.double().numpy()))
    np.testing.assert_allclose(ours.scores.softmax(dim=1).numpy(), expected, atol=1e-3)


def test_a_class_without_examples_is_never_predicted() -> None:
    problem = digits_problem()
    rows = problem.labels != 3
    model = LogisticRegression.fitted(problem.vectors[rows].double(), problem.labels[rows], 10, 1e-3)
    assert not (model.scores(problem.queries.double()).argmax(dim=1) == 3).any()


def test_constant_vectors_score_at_chance() -> None:
    problem = digits_problem()
    broken = replace(problem, vectors=torch.full((1200, 8), 2.0), queries=torch.full((597, 8), 2.0))
    truth = torch.from_numpy(load_digits().target[1200:])
    assert accuracy(logistic(broken).scores, truth) < 0.15


def test_nothing_to_choose_on_is_refused() -> None:
    problem = replace(digits_problem(), choice=torch.empty(0, dtype=torch.int64))
    with pytest.raises(UserError, match="too few"):
        logistic(problem)


def by_newton(vectors: torch.Tensor, labels: torch.Tensor, l2: float) -> Reference:
    """The sum of cross-entropies + l2/2 |W|^2, of the vectors as they are."""
    reference = Reference(C=1 / l2, solver="newton-cholesky", tol=1e-10)
    return reference.fit(vectors.double().numpy(), labels.numpy())


def test_the_grid_is_the_published_one() -> None:
    assert len(L2_GRID) == 45
    np.testing.assert_allclose(L2_GRID, np.logspace(-6, 5, 45), rtol=1e-12)


def noise_problem() -> Problem:
    """Random labels: no plane parts the classes, so that the best weights are finite, however small l2.

    Dimensions of 1 to 1/1000: l2 of any size matters for one of them.
    """
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([1, 0.1, 0.01, 0.001])
    vectors, queries = (scales * torch.randn(count, 4, generator=generator) for count in (300, 50))
    labels = torch.randint(3, (300,), generator=generator)
    return Problem(vectors, labels, torch.arange(200), torch.arange(200, 300), queries, 3)


@pytest.mark.parametrize(
    ("make_problem", "step"),
    [(digits_problem, step) for step in (28, 36, 44)] + [(noise_problem, step) for step in (0, 8, 16, 24)],
)
def test_transfer_equals_scikit_learn(
    make_problem: Callable[[], Problem], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, l2 = make_problem(), L2_GRID[step]
    monkeypatch.setattr(module, "L2_GRID", (l2,))
    outcome = transfer_logistic(problem)
    assert outcome.settings == {"l2": l2, "grid": 1}
    reference = by_newton(problem.vectors, problem.labels, l2)
    queries, ours = problem.queries.double().numpy(), outcome.scores.double()
    np.testing.assert_allclose(ours.softmax(dim=1).numpy(), reference.predict_proba(queries), atol=1e-3)
    # A number may be added to all logits of an image.
    ours, logits = ours - ours.mean(dim=1, keepdim=True), reference.decision_function(queries)
    expected = logits - logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, expected, atol=1e-3 * np.abs(expected).max())


def test_transfer_refits_everything_with_its_choice_and_never_sees_the_queries() -> None:
    problem = digits_problem()
    outcome = transfer_logistic(problem)
    l2 = outcome.settings["l2"]
    assert l2 in L2_GRID and outcome.settings["grid"] == 45
    expected = by_newton(problem.vectors, problem.labels, l2).predict_proba(problem.queries.double().numpy())
    np.testing.assert_allclose(outcome.scores.softmax(dim=1).numpy(), expected, atol=2e-3)
    assert transfer_logistic(replace(problem, queries=torch.randn(7, 64))).settings == outcome.settings


def test_transfer_choice_does_not_hang_on_the_path() -> None:
    """From the weakest l2 to the strongest, each from the one before, gives the same."""
    problem = replace(digits_problem(), fit=torch.arange(400))
    vectors, labels = problem.vectors[problem.fit], problem.labels[problem.fit]
    held, held_labels = problem.vectors[problem.choice], problem.labels[problem.choice]
    mean = vectors.mean(dim=0)
    axes, reached, start = PrincipalAxes.of(vectors - mean), {}, None
    for l2 in L2_GRID:
        start = axes.fit(labels, 10, 1 / l2, start)
        reached[l2] = accuracy(axes.regression(start).scores(held - mean), held_labels)
    chosen = transfer_logistic(problem).settings["l2"]
    best = max(reached, key=lambda l2: (reached[l2], l2))
    # Where two paths end differs by rounding: one image may tip, and the next l2 be as good.
    assert reached[chosen] >= reached[best] - 1.01 / len(held_labels)
    assert abs(L2_GRID.index(chosen) - L2_GRID.index(best)) <= 1


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_extreme_l2_are_stable(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Separable vectors of extreme scale: finite, and the whole path in bounded time."""
    evaluations, original = [], module._Objective.__call__

    def counted(self: module._Objective) -> float:
        evaluations.append(1)
        return original(self)

    monkeypatch.setattr(module._Objective, "__call__", counted)
    problem = digits_problem()
    vectors, labels = scale * problem.vectors[:300], problem.labels[:300]
    axes = PrincipalAxes.of(vectors - vectors.mean(dim=0))
    start = None
    for l2 in reversed(L2_GRID):
        start = axes.fit(labels, 10, 1 / l2, start)
        assert start.isfinite().all()
    assert len(evaluations) < 8000  # 45 fits of at most 2,000 would be 90,000
    assert accuracy(axes.regression(start).scores(vectors - vectors.mean(dim=0)), labels) == 1


def test_settings_are_chosen_by_the_metric_asked_for() -> None:
    """Top-1 prefers to ignore a rare class that many others look like, the mean per class does not."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(300, generator=generator) < 0.2).long()
    vectors = torch.randn(300, 30, generator=generator) + 0.2 * labels[:, None]
    fitted, held = (vectors[:100], labels[:100]), (vectors[100:], labels[100:])
    grid = (1e-4, 1e-2, 1.0)
    standard = StandardScaler().fit(fitted[0].numpy())
    reached = []
    for c in grid:
        reference = Reference(C=c, tol=1e-8).fit(standard.transform(fitted[0].numpy()), fitted[1].numpy())
        given = reference.predict(standard.transform(held[0].numpy()))
        reached.append((accuracy_score(held[1], given), balanced_accuracy_score(held[1], given)))
    best = [grid[int(np.argmax(values))] for values in zip(*reached, strict=True)]
    assert best[0] < best[1]
    assert choose_c(*fitted, *held, 2, grid) == best[0]
    assert choose_c(*fitted, *held, 2, grid, mean_per_class) == best[1]
    problem = Problem(vectors, labels, torch.arange(100), torch.arange(100, 300), vectors[:1], 2)
    by_mean = replace(problem, metric=mean_per_class)
    assert logistic(problem).settings["C"] < logistic(by_mean).settings["C"]
