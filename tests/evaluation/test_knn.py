import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from byol.evaluation import knn as knn_module
from byol.evaluation.knn import default_neighbours, knn, knn_scores, largest, similarities
from byol.evaluation.problem import Problem


def clusters(count: int, seed: int, classes: int = 5, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(classes, (count,), generator=generator)
    return torch.randn(count, width, generator=generator) * 1.5 + centres[labels], labels


def test_equals_a_double_loop() -> None:
    train, labels = clusters(40, 0)
    queries, _ = clusters(15, 1)
    scores = knn_scores(train, labels, queries, k=7, temperature=0.1, num_classes=5)
    for row, query in enumerate(queries.double()):
        cosines = [float(query @ v / (query.norm() * v.norm())) for v in train.double()]
        nearest = sorted(range(40), key=lambda index: -cosines[index])[:7]
        votes = torch.zeros(5, dtype=torch.float64)
        for index in nearest:
            votes[labels[index]] += math.exp(cosines[index] / 0.1)
        torch.testing.assert_close(
            scores[row].double() / scores[row].sum(), votes / votes.sum(), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("k", [1, 20])
def test_equals_scikit_learn(k: int) -> None:
    train, labels = clusters(600, 0)
    queries, _ = clusters(300, 1)

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance) / 0.1)

    reference = KNeighborsClassifier(k, metric="cosine", weights=weights, algorithm="brute")
    expected = reference.fit(train.double().numpy(), labels.numpy()).predict_proba(queries.double().numpy())
    scores = knn_scores(train, labels, queries, k, 0.1, 5)
    shares = (scores / scores.sum(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(shares, expected, atol=1e-4)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels = clusters(100, 0)
    queries, _ = clusters(33, 1)
    whole = knn_scores(train, labels, queries, 10, 0.1, 5)
    monkeypatch.setattr(knn_module, "_SIMILARITIES", 700)
    torch.testing.assert_close(knn_scores(train, labels, queries, 10, 0.1, 5), whole)


@pytest.mark.parametrize("count", [1, 511, 512, 1300])
def test_similarities_are_the_product_in_double_precision(count: int) -> None:
    queries, bank = torch.randn(9, 40), torch.randn(count, 40)
    out = torch.full((12, count), torch.nan)
    found = similarities(queries, bank, out[:9])
    torch.testing.assert_close(found, (queries.double() @ bank.double().T).float())
    assert out[9:].isnan().all()


@pytest.mark.parametrize(("count", "k"), [(50, 50), (800, 50), (1607, 100), (5000, 20), (4099, 1)])
@pytest.mark.parametrize("kind", ["random", "few different", "ascending", "some nan"])
def test_groups_find_what_sorting_finds(count: int, k: int, kind: str) -> None:
    values = torch.randn(7, count, generator=torch.Generator().manual_seed(count))
    values = {
        "random": values,
        "few different": values.mul(3).round(),
        "ascending": values.sort(dim=1).values,
        "some nan": values.masked_fill(values > 3, torch.nan),
    }[kind]
    best, places = largest(values, k)
    expected = values.sort(dim=1, descending=True).values[:, :k]
    found = best.sort(dim=1, descending=True).values
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(values.gather(1, places), best, rtol=0, atol=0, equal_nan=True)
    assert all(len(set(row.tolist())) == k for row in places)


def test_no_queries_no_scores() -> None:
    train, labels = clusters(4000, 0)
    assert knn_scores(train, labels, train[:0], 20, 0.1, 5).shape == (0, 5)


def test_k_is_published_or_small_and_is_cut_to_the_bank() -> None:
    assert [default_neighbours(count) for count in (10_000, 9_999, 12)] == [200, 20, 12]
    train, labels = clusters(12, 0)
    problem = Problem(train, labels, torch.arange(10), torch.arange(10, 12), clusters(4, 1)[0], 5)
    assert knn(problem).settings == {"k": 12, "temperature": 0.1}
    assert knn(problem, torch.tensor([1, 2, 5])).settings["k"] == 3


def test_a_temperature_near_zero_is_the_nearest_neighbour() -> None:
    train, labels = clusters(200, 0)
    queries, _ = clusters(50, 1)
    nearest = labels[(F.normalize(queries) @ F.normalize(train).T).argmax(dim=1)]
    scores = knn_scores(train, labels, queries, 20, 1e-4, 5)
    assert scores.isfinite().all()
    assert torch.equal(scores.argmax(dim=1), nearest)


def test_few_labels_read_nothing_else() -> None:
    train, labels = clusters(60, 0)
    queries, _ = clusters(20, 1)
    drawn = torch.tensor([3, 17, 29, 44, 51])
    problem = Problem(train, labels, torch.arange(50), torch.arange(50, 60), queries, 5)
    poisoned = torch.full_like(labels, -(10**9))
    poisoned[drawn] = labels[drawn]
    other = Problem(train, poisoned, problem.fit, problem.choice, queries, 5)
    assert torch.equal(knn(problem, drawn).scores, knn(other, drawn).scores)
