"""Splits against a brute-force largest remainder and the properties they promise."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from byol.data.splits import draw_labels, holdout_split
from byol.errors import UserError


def largest_remainder(sizes, total):
    """In exact fractions, without bounds."""
    shares = [Fraction(size * total, sum(sizes)) for size in sizes]
    counts = [share.numerator // share.denominator for share in shares]
    order = sorted(range(len(sizes)), key=lambda k: (counts[k] - shares[k], k))
    for k in order[: total - sum(counts)]:
        counts[k] += 1
    return counts


def labels_of(sizes, seed=0):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def counts_of(labels, indices, classes):
    return torch.bincount(labels[indices], minlength=classes).tolist()


def assert_partition(train, held, count):
    assert train.dtype == held.dtype == torch.int64
    assert torch.equal(torch.cat([train, held]).sort().values, torch.arange(count))
    assert torch.equal(train, train.sort().values)
    assert torch.equal(held, held.sort().values)


@pytest.mark.parametrize(
    "sizes", [[100], [50, 50], [33, 34, 33], [7, 11, 101, 40], [500] * 10, [13, 2, 5, 9, 3]]
)
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_stratified_counts_are_the_largest_remainders(sizes, fraction):
    labels = labels_of(sizes)
    train, held = holdout_split(len(labels), labels, fraction)
    assert_partition(train, held, len(labels))
    assert counts_of(labels, held, len(sizes)) == largest_remainder(sizes, round(fraction * len(labels)))


def test_unlabelled_is_any_tenth():
    train, held = holdout_split(1297, None)
    assert_partition(train, held, 1297)
    assert len(held) == 130


@pytest.mark.parametrize("seed", range(20))
def test_every_class_keeps_an_image_and_the_total_stands(seed):
    sizes = np.random.default_rng(seed).integers(1, 9, 12).tolist()
    labels = labels_of(sizes, seed)
    for fraction in (0.1, 0.3, 0.6):
        total = round(fraction * len(labels))
        if total > len(labels) - sum(size > 1 for size in sizes):
            continue
        train, held = holdout_split(len(labels), labels, fraction, seed)
        assert len(held) == total
        kept = counts_of(labels, train, len(sizes))
        assert all(left >= 1 for left, size in zip(kept, sizes, strict=True) if size > 1)


def test_single_images_stay_in_train_unless_the_holdout_needs_them():
    labels = labels_of([1, 1, 1, 7])
    assert counts_of(labels, holdout_split(10, labels, 0.6)[1], 4) == [0, 0, 0, 6]
    assert len(holdout_split(10, labels, 0.8)[1]) == 8
    with pytest.raises(UserError, match="hold out 9 at most"):
        holdout_split(11, labels_of([1, 1, 1, 4, 4]), 10)


def test_the_seed_alone_decides():
    labels = labels_of([40, 60])
    torch.manual_seed(1)
    np.random.seed(1)
    first = holdout_split(100, labels)[1]
    torch.manual_seed(2)
    np.random.seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, holdout_split(100, labels)[1])
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, holdout_split(100, labels, seed=1)[1])
    assert torch.equal(first, holdout_split(100, labels * 5 + 3)[1])  # gaps in the numbering do not matter


def test_the_split_is_what_it_was():
    """Frozen: a change here would put pretrained images into the hold-out of runs already made."""
    assert holdout_split(20, None, 0.25)[1].tolist() == [2, 4, 6, 13, 19]
    assert holdout_split(20, torch.arange(20) % 2, 0.2)[1].tolist() == [4, 6, 13, 19]
    assert draw_labels(torch.arange(20) % 2, 2, 1).tolist() == [0, 10, 13, 15]


def test_whole_numbers_and_nothing():
    assert len(holdout_split(100, None, 7)[1]) == 7
    train, held = holdout_split(5, torch.zeros(5), 0)
    assert train.tolist() == [0, 1, 2, 3, 4]
    assert held.dtype == torch.int64
    assert len(held) == 0
    assert len(holdout_split(3, None, 0.1)[1]) == 0


@pytest.mark.parametrize(
    ("count", "fraction", "words"),
    [
        (10, 11, "hold-out of 11 images is larger than the 10"),
        (10, 10, "leaves none of the 10 images"),
        (10, 1.0, "leaves none"),
        (10, 0.99, "leaves none"),
        (10, -0.1, "must be a share"),
        (10, 2.5, "whole number of images, not 2.5"),
        (10, float("nan"), "must be a share"),
        (10, float("inf"), "must be a share"),
    ],
)
def test_impossible_holdouts(count, fraction, words):
    with pytest.raises(UserError, match=words):
        holdout_split(count, None, fraction)


def test_labels_must_match_the_images():
    with pytest.raises(UserError, match="10 images need as many labels, not 9"):
        holdout_split(10, torch.zeros(9))


def test_a_number_per_class():
    labels = labels_of([30, 20, 10])
    drawn = draw_labels(labels, 5, 0)
    assert counts_of(labels, drawn, 3) == [5, 5, 5]
    assert torch.equal(drawn, drawn.sort().values)
    assert drawn.dtype == torch.int64
    assert torch.equal(drawn, draw_labels(labels, "5", 0))
    assert not torch.equal(drawn, draw_labels(labels, 5, 1))
    assert not torch.equal(drawn, draw_labels(labels, 5, 0, seed=1))
    assert set(drawn.tolist()) < set(draw_labels(labels, 6, 0).tolist())


@pytest.mark.parametrize("sizes", [[500] * 10, [730, 120, 260, 91], [1300, 1299, 732]])
@pytest.mark.parametrize("percent", ["1%", "10%", "2.5%"])
def test_a_share_of_each_class(sizes, percent):
    labels = labels_of(sizes)
    total = round(float(percent[:-1]) / 100 * len(labels))
    assert counts_of(labels, draw_labels(labels, percent, 0), len(sizes)) == largest_remainder(sizes, total)


def test_a_share_holds_every_class():
    labels = labels_of([990, 5, 5])
    assert counts_of(labels, draw_labels(labels, "1%", 3), 3) == [9, 1, 1]
    assert counts_of(labels, draw_labels(labels, "0.1%", 0), 3) == [1, 1, 1]
    assert len(draw_labels(labels, "100%", 0)) == 1000


@pytest.mark.parametrize("amount", ["0%", "101%", "x", "", 0, -3, "2.5", "nan%", "inf"])
def test_impossible_amounts(amount):
    with pytest.raises(UserError, match="number of images per class, such as 5, or a share, such as 1%"):
        draw_labels(labels_of([30, 20]), amount, 0)


def test_too_many_labels_name_the_class():
    with pytest.raises(UserError, match="class 7 has 4 images, fewer than the 5 labels asked for"):
        draw_labels(torch.tensor([2] * 9 + [7] * 4), 5, 0)
    with pytest.raises(UserError, match="class dog has 4 images"):
        draw_labels(torch.tensor([0] * 9 + [1] * 4), 5, 0, class_names=["cat", "dog"])
