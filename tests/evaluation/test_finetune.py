import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from byol.core.backbone import Backbone
from byol.data.images import Subset, TensorImages
from byol.data.source import Source
from byol.data.splits import draw_labels
from byol.errors import UserError
from byol.evaluation.classifier import Classifier
from byol.evaluation.finetune import EPOCHS, RATES, Trial, best, divided, finetune
from byol.evaluation.problem import accuracy
from byol.evaluation.supervised import Setting, Supervision

MakeBackbone = Callable[..., Backbone]
SLOW, QUICK = Setting(1e-6, 4), Setting(1.0, 4)


@dataclass(frozen=True)
class Watched(Supervision):
    """Keeps what was fitted."""

    fits: list[tuple[list[int], Setting]] = field(default_factory=list)

    def fitted(self, indices: Tensor, setting: Setting) -> Classifier:
        self.fits.append((indices.tolist(), setting))
        return super().fitted(indices, setting)


@pytest.fixture
def watched(backbone: Backbone, digits: Source) -> Watched:
    return Watched(backbone, digits.train, 10)


def same(first: Classifier, second: Classifier) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def test_the_setting_that_does_best_on_held_out_images_is_fitted_on_all(watched: Watched) -> None:
    fit, choice, lines = torch.arange(0, 300), torch.arange(300, 400), []
    classifier, settings = finetune(watched, fit, choice, (SLOW, QUICK), lines.append)
    together = list(range(400))
    assert watched.fits == [(fit.tolist(), SLOW), (fit.tolist(), QUICK), (together, QUICK)]
    assert same(classifier, watched.fitted(torch.arange(400), QUICK))
    held = Subset(watched.images, choice)
    assert held.labels is not None
    reached = [
        accuracy(watched.scores(watched.fitted(fit, setting), held), held.labels) for setting in (SLOW, QUICK)
    ]
    assert reached[0] < reached[1]
    assert settings == {
        "lr": 1.0,
        "epochs": 4,
        "batch_size": 25,
        "bn_momentum": 0.1,
        "freeze": [],
        "grid": [
            {"lr": 1e-6, "epochs": 4, "held_out": reached[0]},
            {"lr": 1.0, "epochs": 4, "held_out": reached[1]},
        ],
    }
    assert lines[1].startswith(f"300 labels, lr 1, 4 epochs, {reached[1]:.1%} of 100 held-out images (")
    assert "larger --finetune-rates" in lines[2]
    assert lines[3].startswith("400 labels, lr 1, 4 epochs, the last fit (")


def test_no_label_outside_is_read(backbone: Backbone, digits: Source) -> None:
    train = digits.train
    assert isinstance(train, TensorImages)
    assert train.labels is not None
    drawn = draw_labels(train.labels, 5, 0, 0)
    others = torch.ones(len(train), dtype=torch.bool)
    others[drawn] = False
    poisoned = torch.where(others, 9 - train.labels, train.labels)
    found = []
    for labels in (train.labels, poisoned):
        supervision = Supervision(backbone, TensorImages(train.images, labels), 10)
        parts = divided(labels, drawn, 0)
        found.append(finetune(supervision, *parts, (SLOW, QUICK), lambda line: None))
    (first, settings), (second, settings_again) = found
    assert settings == settings_again
    assert same(first, second)


def test_the_default_grid_is_the_published_one() -> None:
    """For few labels: BYOL, appendix C."""
    assert sorted(RATES) == [0.005, 0.01, 0.02, 0.05, 0.1]
    assert sorted(EPOCHS) == [30, 50]


def test_a_grid_of_one_needs_no_comparison(watched: Watched) -> None:
    _, settings = finetune(watched, torch.arange(40), torch.arange(40, 50), (QUICK,), lambda line: None)
    assert watched.fits == [(list(range(50)), QUICK)]
    assert settings["grid"] == [{"lr": 1.0, "epochs": 4, "held_out": None}]


def test_the_largest_where_nothing_is_held_out(watched: Watched) -> None:
    grid = (Setting(0.1, 1), Setting(0.2, 2), Setting(0.2, 1))
    _, settings = finetune(watched, torch.arange(20), torch.arange(0), grid, lambda line: None)
    assert watched.fits == [(list(range(20)), Setting(0.2, 2))]
    assert (settings["lr"], settings["epochs"]) == (0.2, 2)


def test_what_cannot_be_fitted(watched: Watched) -> None:
    with pytest.raises(UserError, match="at least two labelled images"):
        finetune(watched, torch.arange(1), torch.arange(0), (QUICK,), lambda line: None)
    wild = Setting(1e38, 4)
    with pytest.raises(UserError, match=r"diverged with a rate of 1e\+38: give lower --finetune-rates"):
        finetune(watched, torch.arange(40), torch.arange(0), (wild,), lambda line: None)
    _, settings = finetune(watched, torch.arange(40), torch.arange(40, 60), (wild, QUICK), lambda line: None)
    assert settings["lr"] == 1.0
    assert settings["grid"][0]["held_out"] == 0.0


def test_among_equals_the_smaller_loss_then_the_first() -> None:
    settings = [Setting(0.1, 1), Setting(0.2, 1), Setting(0.3, 1), Setting(0.4, 1)]
    values = [(0.5, 1.0), (0.5, 0.8), (0.5, 0.8), (0.4, 0.1)]
    trials = [Trial(setting, *value) for setting, value in zip(settings, values, strict=True)]
    assert best(trials) == settings[1]
    assert best([replace(trials[0], accuracy=0.0, loss=math.inf), trials[3]]) == settings[3]


@pytest.mark.parametrize(
    ("counts", "held"),
    [
        ([5, 5, 5], 3),  # a fifth
        ([10, 5], 3),
        ([2, 1, 1], 1),  # the only image of a class stays
        ([3, 1, 1, 1], 1),
        ([1, 1, 1], 0),
        ([2], 1),
    ],
)
def test_a_fifth_of_few_labels_is_held_out(counts: list[int], held: int) -> None:
    labels = torch.cat([torch.full((count,), number) for number, count in enumerate(counts)])
    place = torch.randperm(50, generator=torch.Generator().manual_seed(1))[: len(labels)].sort().values
    everything = torch.full((50,), -7)
    everything[place] = labels
    fit, choice = divided(everything, place, 3)
    assert len(choice) == held
    assert sorted([*fit.tolist(), *choice.tolist()]) == place.tolist()
    assert set(everything[fit].tolist()) == set(range(len(counts)))
    assert all(torch.equal(*pair) for pair in zip((fit, choice), divided(everything, place, 3), strict=True))
    if held == 3 and len(counts) == 3:
        assert sorted(everything[choice].tolist()) == [0, 1, 2]  # stratified
