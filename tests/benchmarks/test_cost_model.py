"""The model of a step's cost: what is counted, and what is fitted."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn


def test_known_rates_are_found_again(script: Callable[[str], ModuleType]) -> None:
    model = script("cost_model")
    truth = model.Rates(2e11, 1e10, 0.004)
    works = [model.Amount(1e10 * n, 1e8 * (7 - n) ** 2) for n in range(1, 6)]
    found = model.fitted(works, [truth.seconds(work) for work in works])
    assert found.operations == pytest.approx(truth.operations)
    assert found.bytes == pytest.approx(truth.bytes)
    assert found.fixed == pytest.approx(truth.fixed)


def test_nothing_costs_less_than_nothing(script: Callable[[str], ModuleType]) -> None:
    model = script("cost_model")
    found = model.fitted([model.Amount(1e9 * n, 1e9) for n in (1, 2, 3)], [0.9, 2.0, 3.1])
    assert found.fixed == 0 and found.bytes == float("inf") and found.operations > 0


def test_operations_of_a_step_are_those_of_the_formula(script: Callable[[str], ModuleType]) -> None:
    """One convolution, without gradient of its input, and heads of two layers a network."""
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    convolution = 2 * 8 * 8 * 5 * 3 * 9
    projector, predictor = 2 * (5 * 16 + 16 * 256), 2 * (256 * 16 + 16 * 256)
    # Online: forward, gradient of weights, and of inputs, which the first convolution does not need.
    formula = 2 * (2 * convolution + 3 * (projector + predictor)) + 2 * (convolution + projector)
    counted = script("cost_model").step_work(net, 8, hidden=16)
    assert counted.per_image.operations == formula
    assert counted.per_step.operations == 0
    assert script("floors").step_operations(net, 8, hidden=16) == formula


def test_bytes_are_those_that_an_operator_reads_and_writes(script: Callable[[str], ModuleType]) -> None:
    traffic = script("cost_model")._Traffic()
    left, right = torch.ones(4, 8), torch.ones(8, 2)
    with traffic:
        product = left @ right
        product.t()[0]
    assert traffic.bytes == 4 * (4 * 8 + 8 * 2 + 4 * 2)
    assert traffic.operators == 1


def test_more_gpus_take_less_time_but_not_in_proportion(script: Callable[[str], ModuleType]) -> None:
    forecast = script("forecast")
    values = {
        "gpus": [],
        "resnet50-224": {
            "per_step": {"operations": 0.0, "bytes": 3e9, "operators": 3000},
            "per_image": {"operations": 6.5e10, "bytes": 2e9, "operators": 0},
            "parameters": 40_000_000,
            "batch_norms": 55,
        },
    }
    one, eight, many = (forecast.pace(values, gpus) for gpus in (1, 8, 256))
    assert one < eight < 8 * one
    assert eight < many < 32 * eight
    crowd = forecast.first_crowd(values)
    assert forecast.pace(values, crowd) / crowd < one / 2 <= 2 * forecast.pace(values, crowd // 2) / crowd
    alone = forecast.step_parts(values, 1)
    assert alone["gradients"] == alone["batch statistics"] == 0
    assert alone["operations"] == pytest.approx(4096 * 6.5e10 / forecast.ASSUMED["operations"])
    ring = 2 * 255 / 256 * 4 * 40e6 / forecast.ASSUMED["link_between"]
    assert forecast.step_parts(values, 256)["gradients"] == pytest.approx(ring)
    hundred, thousand = forecast.GOALS[:2]
    ratio = forecast.days(values, thousand, 8) / forecast.days(values, hundred, 8)
    assert ratio == pytest.approx(10)


def test_an_epoch_of_cifar10_follows_from_two_batch_sizes(script: Callable[[str], ModuleType]) -> None:
    """Operations of a million an image, and a thousand bytes an image beside five thousand a step."""
    forecast = script("forecast")
    resnet18 = {"backbone": "resnet18", "size": 32, "operators": 900}
    rows = [{**resnet18, "batch": n, "operations": 1e6 * n, "bytes": 5e3 + 1e3 * n} for n in (16, 64)]
    others = [{**rows[0], "size": 64}, {**rows[0], "backbone": "resnet8_32"}]
    values = {"gpus": [], "steps": [*others, *rows], "resnet50-224": {"per_step": {"operators": 7}}}
    found = forecast.cifar_step(values, 512)
    assert found["operations"] == pytest.approx(512e6 / forecast.ASSUMED["operations"])
    assert found["memory traffic"] == pytest.approx((5e3 + 512e3) / (2 * forecast.ASSUMED["bytes"]))
    assert found["launches"] == pytest.approx(900 * forecast.ASSUMED["launch"])
    measured = {"operations": 1e12, "bytes": 1e11, "fixed": 0.001}
    found = forecast.cifar_step({**values, "gpus": ["one"], "model": measured}, 64)
    assert found == pytest.approx({"operations": 64e-6, "memory traffic": 69e-8, "launches": 0.001})
    assert forecast.cifar_step({**values, "steps": [*others, rows[0]]}, 512) is None


def test_bytes_to_hold_are_those_of_the_formula(script: Callable[[str], ModuleType]) -> None:
    """What layers with weights, batch norms and relus get or give, batch statistics, and all gradients."""
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    learner = script("cost_model").BYOL(net, 8, hidden_layer=None)
    gradients = sum(4 * parameter.numel() for parameter in learner.online_parameters())
    hold = script("cost_model").bytes_to_hold
    # The convolution gets the view, which is there anyway; an average keeps nothing. A head keeps what goes
    # into its first layer, its batch norm, and (after relu, in place) its last layer; mean and deviation.
    per_image = 4 * (5 + 2 * 4096) + 4 * (256 + 2 * 4096)
    statistics = 2 * 2 * 4 * 4096
    assert hold(net, 8, 64) == gradients + statistics + 64 * per_image
    half = gradients + (hold(net, 8, 64) - gradients) / 2
    assert hold(net, 8, 64, "bf16") == pytest.approx(half)
