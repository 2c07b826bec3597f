import pytest
import torch

from byol.data.images import TensorImages
from byol.data.source import Source
from byol.data.splits import holdout_split
from byol.errors import UserError
from byol.evaluation.task import divide


def test_with_a_test_split_the_holdout_decides(digits: Source) -> None:
    task = divide(digits, 0.2)
    fit, held = holdout_split(1297, digits.train.labels, 0.2, 0)
    assert torch.equal(task.fit, fit)
    assert torch.equal(task.choice, held)
    assert (task.split, len(task.scored), len(task.train), task.num_classes) == ("test", 500, 1297, 10)


def test_a_run_without_holdout_chooses_on_a_tenth(digits: Source) -> None:
    assert len(divide(digits, 0.0).choice) == 130


def test_without_test_the_holdout_is_scored_and_stays_untouched(digits: Source) -> None:
    task = divide(Source("digits", digits.train), 0.1)
    fit, held = holdout_split(1297, digits.train.labels, 0.1, 0)
    assert task.split == "holdout"
    assert list(task.scored.keys) == [digits.train.keys[index] for index in held]
    assert not set(task.train.keys) & set(task.scored.keys)
    assert sorted([*task.fit.tolist(), *task.choice.tolist()]) == list(range(len(fit)))


def test_a_test_split_without_labels_is_no_test_split(digits: Source) -> None:
    unlabelled = TensorImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    assert divide(Source("digits", digits.train, unlabelled), 0.1).split == "holdout"


def test_nothing_to_evaluate_against(digits: Source) -> None:
    unlabelled = TensorImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(UserError, match="has no labels"):
        divide(Source("mine", unlabelled), 0.1)
    with pytest.raises(UserError, match="nothing to score"):
        divide(Source("digits", digits.train), 0.0)
