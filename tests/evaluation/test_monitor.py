import math

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.data.images import Subset
from byol.data.source import Source
from byol.evaluation import monitor
from byol.evaluation.baselines import pixel_preprocess
from byol.evaluation.monitor import effective_rank, holdout_accuracies, std_of_normalized


def test_std_of_points_on_the_sphere_is_one_over_root_d() -> None:
    vectors = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    assert std_of_normalized(vectors) == pytest.approx(1 / 8, rel=0.01)
    assert std_of_normalized(vectors * 1000) == pytest.approx(1 / 8, rel=0.01)
    assert std_of_normalized(torch.ones(50, 64) * torch.arange(1, 51)[:, None]) == pytest.approx(0, abs=1e-6)


def test_std_in_closed_form() -> None:
    # Opposite points e and -e: each coordinate c has mean 0 and standard deviation |c|.
    vectors = torch.tensor([[3.0, 4.0], [-3.0, -4.0]])
    assert std_of_normalized(vectors) == pytest.approx((0.6 + 0.8) / 2)


def test_effective_rank_in_closed_form() -> None:
    assert effective_rank(torch.eye(7)) == pytest.approx(7)
    assert effective_rank(torch.ones(30, 5)) == pytest.approx(1, abs=1e-4)
    shares = [0.75, 0.25]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected)
    assert effective_rank(torch.zeros(4, 3)) == 0
    assert math.isnan(effective_rank(torch.tensor([[math.nan, 1.0]])))


def test_holdout_knn_equals_scikit_learn_on_pixels(digits: Source) -> None:
    train, held = Subset(digits.train, torch.arange(1000)), Subset(digits.train, torch.arange(1000, 1297))
    ours = holdout_accuracies(nn.Flatten(), pixel_preprocess(train, 8), train, held)["knn"]
    x, z = (torch.stack([s[i].flatten() for i in range(len(s))]).double().numpy() for s in (train, held))
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda d: 2.718281828 ** ((1 - d) / 0.1))
    expected = reference.fit(x, train.labels).score(z, held.labels)
    assert ours == pytest.approx(expected, abs=1 / 297 + 1e-9)  # at most one tie


def test_the_bank_is_limited_and_the_same_every_time(
    backbone: Backbone, digits: Source, preprocess: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, held = Subset(digits.train, torch.arange(1000)), Subset(digits.train, torch.arange(1000, 1297))
    whole = holdout_accuracies(backbone, preprocess, train, held)["knn"]
    monkeypatch.setattr(monitor, "_IMAGES", 300)
    few = [holdout_accuracies(backbone, preprocess, train, held)["knn"] for _ in range(2)]
    assert few[0] == few[1] < whole
    assert monitor.images_measured(train, held) == 300 + 297


class Constant(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.new_ones(len(images), 4)


def test_a_constant_backbone_scores_at_chance(digits: Source, preprocess: Preprocess) -> None:
    assert digits.test is not None
    assert holdout_accuracies(Constant(), preprocess, digits.train, digits.test)["knn"] < 0.2
