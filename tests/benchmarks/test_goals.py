"""Whether a record reaches its goals."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

RESNET18 = {"backbone": "resnet18", "stem": "small"}
LINEAR = {"mean": 0.91, "split": "test"}


def reached(goals: ModuleType, **changed: Any) -> dict[str, bool]:
    """Return the goals, and which are reached by a result that reaches all but for what is changed."""
    given = {"budget": "10min", "data": "cifar10", "settings": RESNET18, "seconds": [590.0, 600.0]}
    found = goals.verdicts(**{**given, "linear": LINEAR, **changed})
    return {each["goal"]: each["reached"] for each in found}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {"training seconds": True, "linear top-1": True}),
        ({"seconds": [600.01, 10.0]}, {"training seconds": False, "linear top-1": True}),
        ({"linear": {**LINEAR, "mean": 0.9099}}, {"training seconds": True, "linear top-1": False}),
        ({"budget": "20min"}, {"training seconds": True, "linear top-1": False}),
        ({"budget": "1min"}, {"training seconds": False, "linear top-1": True}),
        ({"data": "cifar100"}, {"training seconds": True}),
        ({"settings": {**RESNET18, "backbone": "resnet50"}}, {"training seconds": True}),
        ({"settings": {**RESNET18, "stem": "standard"}}, {"training seconds": True}),
        ({"linear": {**LINEAR, "split": "holdout"}}, {"training seconds": True}),
    ],
    ids=str,
)
def test_goals_are_reached_at_the_limit_and_not_beyond(
    script: Callable[[str], ModuleType], changed: dict[str, Any], expected: dict[str, bool]
) -> None:
    assert reached(script("goals"), **changed) == expected


def test_a_verdict_in_words(script: Callable[[str], ModuleType]) -> None:
    goals = script("goals")
    time, accuracy = goals.verdicts("1min", "cifar10", RESNET18, [61.04], {**LINEAR, "mean": 0.8325})
    assert goals.told(time) == "training seconds 61.0 (goal: at most 60.0): not reached"
    assert goals.told(accuracy) == "linear top-1 83.25% (goal: at least 83.20%): reached"


def test_the_page_tells_them(script: Callable[[str], ModuleType]) -> None:
    row = {"mean": 0.84, "std": 0.0, "split": "test"}
    rows = [{**row, "protocol": protocol} for protocol in ("linear", "knn", "online")]
    goals = script("goals").verdicts("1min", "cifar10", RESNET18, [57.0], rows[0])
    values = {
        "settings": {**RESNET18, "epochs": "18", "image_size": 32, "view_size": 24},
        "budget": "1min",
        "data": "cifar10",
        "seeds": [0],
        "training_seconds": [57.0],
        "program_seconds": [99.0],
        "rows": rows,
        "goals": goals,
    }
    page = script("report").budget(values)
    assert "after the last of 18 epochs, views of 24 pixels; pretraining seeds 0 (+-" in page
    assert "| 84.0 | 84.0 | 84.0 |\n\n- training seconds 57.0 (goal: at most 60.0): reached\n" in page
