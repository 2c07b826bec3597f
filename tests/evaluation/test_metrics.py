import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

from byol.evaluation.problem import accuracy, mean_per_class, predicted


def scored(classes: int, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores that are right for more than half, and labels of very unequal classes."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.arange(1, classes + 1).double() ** 2
    labels = torch.multinomial(weights, count, replacement=True, generator=generator)
    scores = torch.randn(count, classes, generator=generator)
    scores[torch.arange(count), labels] += 2
    return scores, labels


@pytest.mark.parametrize(("classes", "count"), [(2, 37), (10, 501), (47, 300)])
def test_metrics_equal_scikit_learn(classes: int, count: int) -> None:
    scores, labels = scored(classes, count, classes)
    given = scores.argmax(dim=1).numpy()
    assert predicted(scores)[:, 0].tolist() == given.tolist()
    assert accuracy(scores, labels) == pytest.approx(accuracy_score(labels, given), abs=1e-12)
    with warnings.catch_warnings():  # scikit-learn tells that some predicted classes do not occur
        warnings.simplefilter("ignore")
        expected = balanced_accuracy_score(labels, given)
    assert mean_per_class(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert abs(expected - accuracy_score(labels, given)) > 1e-3
    if classes == 10:
        top5 = top_k_accuracy_score(labels, scores.numpy(), k=5, labels=np.arange(10))
        assert accuracy(scores, labels, top=5) == pytest.approx(top5, abs=1e-12)


def test_classes_that_do_not_occur_do_not_count() -> None:
    scores = torch.eye(5)[torch.tensor([0, 0, 0, 3, 4, 1])]
    labels = torch.tensor([0, 0, 0, 3, 3, 3])  # classes 1, 2 and 4 are predicted or empty
    assert mean_per_class(scores, labels) == pytest.approx((1 + 1 / 3) / 2)


def test_a_class_that_no_score_stands_for_is_wrong() -> None:
    labels = torch.tensor([0, 1, 4])
    assert mean_per_class(torch.eye(2)[torch.tensor([0, 1, 1])], labels) == pytest.approx(2 / 3)
    assert accuracy(torch.eye(2)[torch.tensor([0, 1, 1])], labels) == pytest.approx(2 / 3)


def test_an_empty_set_and_broken_scores() -> None:
    nothing = torch.empty(0, 3), torch.empty(0, dtype=torch.int64)
    assert accuracy(*nothing) == mean_per_class(*nothing) == 0
    broken = torch.tensor([[torch.nan, 1.0, 0.0], [torch.inf, 0.0, 1.0]])
    assert predicted(broken)[:, 0].tolist() == [1, 2]
