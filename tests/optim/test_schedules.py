"""Schedules against their formulas, presets against the published table."""

import math

import pytest
import torch

from byol.optim.length_presets import LENGTH_PRESETS, preset_for
from byol.optim.schedules import cosine_tau, warmup_cosine


def test_the_learning_rate_rises_linearly_then_falls_along_half_a_cosine() -> None:
    """`schedules.py` of the official code, step by step."""
    warmup, total = 10, 110
    for step in range(total):
        if step < warmup:
            expected = step / warmup
        else:
            expected = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        assert warmup_cosine(step, warmup, total) == pytest.approx(expected, abs=1e-15)


def test_its_first_and_last_steps() -> None:
    assert warmup_cosine(0, 10, 110) == 0
    assert warmup_cosine(9, 10, 110) == 0.9
    assert warmup_cosine(10, 10, 110) == 1
    assert warmup_cosine(60, 10, 110) == pytest.approx(0.5)
    last = warmup_cosine(109, 10, 110)
    assert 0 < last == pytest.approx((math.pi / 100) ** 2 / 4, rel=1e-3)
    assert warmup_cosine(110, 10, 110) == warmup_cosine(200, 10, 110) == 0


def test_without_warm_up_it_starts_at_the_peak() -> None:
    assert warmup_cosine(0, 0, 5) == 1
    assert warmup_cosine(0, 0, 1) == 1
    assert warmup_cosine(3, 5, 5) == 0.6
    assert warmup_cosine(5, 5, 5) == 1, "no step is left to fall on"


def test_tau_follows_the_paper() -> None:
    total, base = 50, 0.996
    for k in range(total + 1):
        expected = 1 - (1 - base) * (math.cos(math.pi * k / total) + 1) / 2
        assert cosine_tau(k, base, total) == pytest.approx(expected, abs=1e-15)


def test_its_ends() -> None:
    assert cosine_tau(0, 0.97, 10) == pytest.approx(0.97)
    assert cosine_tau(5, 0.97, 10) == pytest.approx(0.985)
    assert cosine_tau(10, 0.97, 10) == cosine_tau(11, 0.97, 10) == 1
    assert cosine_tau(9, 0.97, 10) < 1
    assert cosine_tau(10**9, 0.97, None) == 0.97
    assert [cosine_tau(k, 1.0, 10) for k in (0, 5, 10)] == [1, 1, 1]


def test_the_presets_are_the_published_table() -> None:
    """`configs/byol.py` of the official code: base learning rate, weight decay, tau_base."""
    published = {
        40: (0.45, 1e-6, 0.97),
        100: (0.45, 1e-6, 0.99),
        300: (0.3, 1e-6, 0.99),
        1000: (0.2, 1.5e-6, 0.996),
    }
    assert published == {e: (p.base_lr, p.weight_decay, p.tau) for e, p in LENGTH_PRESETS.items()}
    for epochs in published:
        assert preset_for(epochs) is LENGTH_PRESETS[epochs]


@pytest.mark.parametrize(
    ("epochs", "nearest"), [(1, 40), (0.5, 40), (60, 40), (70, 100), (170, 100), (200, 300), (5000, 1000)]
)
def test_other_lengths_take_the_nearest_by_ratio(epochs: float, nearest: int) -> None:
    assert preset_for(epochs) is LENGTH_PRESETS[nearest]


def test_it_rises_from_and_falls_to_what_is_asked_for() -> None:
    """`GradualWarmupScheduler` and torch's cosine of PixPro's `contrast/lr_scheduler.py`, step by step."""
    peak, multiplier, lowest, warmup, total = 4.0, 100.0, 1e-6, 5, 45
    weight = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.SGD([weight], peak)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=lowest)
    for step in range(total):
        if step < warmup:
            expected = peak / multiplier * ((multiplier - 1) * step / warmup + 1)
        else:
            expected = cosine.get_last_lr()[0]
            optimizer.step()
            cosine.step()
        found = peak * warmup_cosine(step, warmup, total, start=1 / multiplier, end=lowest / peak)
        assert found == pytest.approx(expected, rel=1e-9)
    assert peak * warmup_cosine(total, warmup, total, end=lowest / peak) == pytest.approx(lowest)
