"""kNN or logistic regression on the same made-up features, as a library does it; predictions go to a file.

The features are 512 wide, from 10 classes that overlap: each a few broad clusters, so that neighbours vote
differently and a regression has something to find. As those of networks, they vary along few directions much
and along many little: the standard deviation along the n-th direction falls as 1/n.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from turn import seconds, set_up_torch, take_turns

WIDTH, CLASSES, NEIGHBOURS, TEMPERATURE, C = 512, 10, 200, 0.1, 0.01
Predict = Callable[[], Tensor]


class Features:
    """Labelled vectors to learn from, and queries."""

    def __init__(self, vectors: int, queries: int) -> None:
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(CLASSES * 5, WIDTH, generator=generator)
        cluster = torch.randint(0, CLASSES * 5, (vectors + queries,), generator=generator)
        noise = torch.randn(vectors + queries, WIDTH, generator=generator)
        both = centres[cluster] + 4 * noise
        rotation, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))
        both = both / torch.arange(1, WIDTH + 1) @ rotation
        self.vectors, self.queries = both.split([vectors, queries])
        self.labels = (cluster % CLASSES)[:vectors]


def byol_knn(features: Features) -> Predict:
    """Return ours."""
    from byol.evaluation.knn import knn_scores

    def predict() -> Tensor:
        scores = knn_scores(
            features.vectors, features.labels, features.queries, NEIGHBOURS, TEMPERATURE, CLASSES
        )
        return scores.argmax(dim=1)

    return predict


def scikit_knn(features: Features) -> Predict:
    """Return brute force with cosine distances and the same votes."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(
        NEIGHBOURS,
        weights=lambda distance: np.exp((1 - distance) / TEMPERATURE),
        algorithm="brute",
        metric="cosine",
        n_jobs=-1,
    )
    model.fit(features.vectors.numpy(), features.labels.numpy())
    return lambda: torch.from_numpy(model.predict(features.queries.numpy()))


def lightly_knn(features: Features) -> Predict:
    """Return lightly's `knn_predict`, for 256 queries at a time as its benchmarks' loaders give them."""
    from lightly.utils.benchmarking import knn_predict
    from torch.nn.functional import normalize

    def predict() -> Tensor:
        bank = normalize(features.vectors).t().contiguous()
        queries = normalize(features.queries)
        found = [
            knn_predict(part, bank, features.labels, CLASSES, NEIGHBOURS, TEMPERATURE)
            for part in queries.split(256)
        ]
        return torch.cat(found)[:, 0]

    return predict


def product_alone(features: Features) -> Predict:
    """Return kNN's one product and nothing else: what it cannot be faster than."""
    from torch.nn.functional import normalize

    from byol.evaluation.knn import similarities

    bank, queries = normalize(features.vectors), normalize(features.queries)
    rows = 2**25 // len(bank)
    buffer = torch.empty(rows, len(bank))

    def multiply() -> Tensor:
        for part in queries.split(rows):
            similarities(part, bank, buffer[: len(part)])
        return features.labels[: len(queries)]

    return multiply


def byol_logistic(features: Features) -> Predict:
    """Return ours, in double precision as for the number that is reported."""
    from byol.evaluation.logistic import LogisticRegression, Standardization

    def predict() -> Tensor:
        standard = Standardization.of(features.vectors)
        model = LogisticRegression.fitted(standard(features.vectors).double(), features.labels, CLASSES, C)
        return model.scores(standard(features.queries).double()).argmax(dim=1)

    return predict


def work_of_logistic(predict: Predict) -> dict[str, int]:
    """Return what our regression does: operations of its products, and how often it looks at all vectors."""
    from byol.evaluation import logistic

    objective, once = logistic._Objective, logistic._Objective.__call__
    with (
        patch.object(objective, "__call__", autospec=True, side_effect=once) as looks,
        FlopCounterMode(display=False) as counter,
    ):
        predict()
    return {"operations": counter.get_total_flops(), "evaluations": looks.call_count}


def scikit_logistic(features: Features) -> Predict:
    """Return scikit-learn's L-BFGS, to a gradient of 1e-4, its default, as ours."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    def predict() -> Tensor:
        scaler = StandardScaler().fit(features.vectors.numpy())
        model = LogisticRegression(C=C, max_iter=1000)
        model.fit(scaler.transform(features.vectors.numpy()).astype(np.float64), features.labels.numpy())
        return torch.from_numpy(model.predict(scaler.transform(features.queries.numpy())))

    return predict


WORKS = {
    ("knn", "byol"): byol_knn,
    ("knn", "scikit-learn"): scikit_knn,
    ("knn", "lightly"): lightly_knn,
    ("knn", "the product alone"): product_alone,
    ("logistic", "byol"): byol_logistic,
    ("logistic", "scikit-learn"): scikit_logistic,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", choices=["knn", "logistic"], required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--count", action="store_true", help="count our regression's work, do not time it")
    options = parser.parse_args()
    set_up_torch(None)
    predict = WORKS[options.protocol, options.library](Features(options.vectors, options.queries))
    if options.count:
        take_turns(lambda: None, lambda _: work_of_logistic(predict))
    else:
        take_turns(lambda: np.save(options.predictions, predict().numpy()), seconds)


if __name__ == "__main__":
    main()
