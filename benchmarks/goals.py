"""What `cifar10.py` is to reach within each budget, and whether it did."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Budget:
    """A length of training, and what CIFAR-10 is to reach within it."""

    seconds: float
    """Of training, at most."""
    linear: float
    """Top-1 of the linear probe on CIFAR-10's test images, at least, of a ResNet-18 with a 3x3 stem; in
    [0,1]."""


BUDGETS = {
    "1min": Budget(60.0, 0.832),
    "10min": Budget(600.0, 0.910),
    "20min": Budget(1200.0, 0.933),
}


def verdicts(
    budget: str, data: str, settings: dict[str, Any], seconds: Sequence[float], linear: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return each goal with the value that came out, and whether that reaches it.

    Args:
        budget: a name of `BUDGETS`.
        data: what the set is called. Accuracy has a goal where it is "cifar10", scored on its test images.
        settings: of the runs. Accuracy has a goal for ResNet-18 with a 3x3 stem alone.
        seconds: of training, of each seed: the longest counts.
        linear: "mean" over the seeds, in [0,1], and "split" of the linear probe.
    """
    goal = BUDGETS[budget]
    found = [verdict("training seconds", max(seconds), at_most=goal.seconds)]
    network = (settings["backbone"], settings["stem"])
    if (data, linear["split"], network) == ("cifar10", "test", ("resnet18", "small")):
        found.append(verdict("linear top-1", linear["mean"], at_least=goal.linear))
    return found


def verdict(
    name: str, value: float, at_most: float = float("inf"), at_least: float = float("-inf")
) -> dict[str, Any]:
    """Return a goal, the value beside it, and whether it is reached."""
    limits = {"at_most": at_most, "at_least": at_least}
    given = {key: limit for key, limit in limits.items() if abs(limit) != float("inf")}
    return {"goal": name, **given, "value": value, "reached": at_least <= value <= at_most}


def told(goal: dict[str, Any]) -> str:
    """Return a verdict in words."""
    shown = "{:.1f}" if "at_most" in goal else "{:.2%}"
    limit = "at most " + shown if "at_most" in goal else "at least " + shown
    result = "reached" if goal["reached"] else "not reached"
    bound = goal.get("at_most", goal.get("at_least"))
    return f"{goal['goal']} {shown.format(goal['value'])} (goal: {limit.format(bound)}): {result}"
