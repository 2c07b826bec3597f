from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.preprocessing import StandardScaler

from byol.errors import UserError
from byol.evaluation.logistic import (
    C_GRID,
    LogisticRegression,
    Standardization,
    choose_c,
    few_label_logistic,
    logistic,
)
from byol.evaluation.problem import Problem, accuracy


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
