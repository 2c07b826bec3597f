"""One record of results.json, and the table that is printed of several."""

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from torch import Tensor

BASELINES = ("random-init", "pixels")
Row = tuple[str, str, str]
"""protocol, features, split"""
_HEADINGS = ("protocol", "features", "split")
_ALWAYS = ("protocol", "features")
"""Shown also where all rows have the same."""
_PIPE_WIDTH = 200


@dataclass(frozen=True)
class Result:
    """One measured number, with all that is needed to know what it is."""

    protocol: str
    """knn, logistic, linear, ..., segmentation, patch_knn"""
    features: str
    """The method that made the backbone, or one of `BASELINES`."""
    labels: str | int
    """"all", a number per class, or a share such as "1%"."""
    draw: int | None
    """Which draw of few labels, from 0; None with all labels."""
    metric: str
    """top1, top5 or mean_per_class; miou or pixel_accuracy."""
    value: float
    """0-1."""
    split: str
    """What was scored: test, holdout, or all of a set without a test split (by a saved network)."""
    seed: int | None
    """Of the pretraining."""
    epoch: float | None
    """Of the weights: 0 for random-init, None for pixels."""
    data: str
    seconds: float
    """Spent on fitting and scoring; segmentation and patch_knn include the extraction of features, the others
    do not."""
    settings: dict[str, Any] = field(default_factory=dict)
    """k, temperature, C, lr, ..."""
    predictions: "Tensor | Sequence[Tensor] | None" = field(default=None, repr=False, compare=False)
    """[M] the class given to each scored image, in the order of the split, or by segmentation uint8 [H,W] to
    the pixels of each where there is a report; not part of the record."""

    @property
    def name(self) -> str:
        """The protocol, and which head it was done with where there are several: segmentation-linear."""
        return "-".join([self.protocol, *filter(None, [self.settings.get("head")])])

    def to_dict(self) -> dict[str, Any]:
        """Return the record: plain values for JSON."""
        return {name: value for name, value in vars(self).items() if name != "predictions"}


def table(results: Sequence[Result], metric: str = "top1") -> "Group":
    """Lay results out under their heading: a row per protocol and features, a column per amount of labels.

    Percent; mean +- standard deviation where there are several draws. Baselines stand below the
    method that they belong to. Other metrics are left to results.json. Of results that differ in
    value only, the last counts.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    cells = values_by_cell(results, metric)
    amounts = sorted({amount for _, amount in cells}, key=amount_order)
    rows = sorted({row for row, _ in cells}, key=row_order)
    shown = [i for i, name in enumerate(_HEADINGS) if name in _ALWAYS or len({row[i] for row in rows}) > 1]
    laid_out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index in shown:
        laid_out.add_column(_HEADINGS[index], no_wrap=True)
    for amount in amounts:
        laid_out.add_column(amount_name(amount), justify="right")
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        values = [_percent(cells.get((row, amount), [])) for amount in amounts]
        ends_group = after is not None and _group(after) != _group(row)
        laid_out.add_row(*(row[index] for index in shown), *values, end_section=ends_group)
    # A title inside the table would be broken at the table's width.
    return Group(Text(f"{heading(results, metric)}, percent"), laid_out)


def shown_metrics(results: Sequence[Result], wanted: str) -> tuple[str, ...]:
    """Return the metrics to show, a table each: the wanted one, or both of results that judge by masks."""
    of_masks = ("miou", "pixel_accuracy")
    return of_masks if all(result.metric in of_masks for result in results) else (wanted,)


def print_table(results: Sequence[Result], metric: str = "top1") -> None:
    """Print the table to standard output: plain text, however wide, where that is no terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table(results, metric))


def values_by_cell(results: Iterable[Result], metric: str) -> dict[tuple[Row, str | int], list[float]]:
    """Return the values by row and amount of labels; of results that differ in value only, the last."""
    latest: dict[tuple[Any, ...], float] = {}
    for r in results:
        if r.metric == metric:
            row = (r.name, r.features, r.split)
            latest[row, r.labels, (r.draw, r.seed, r.epoch, r.data, r.settings.get("seed"))] = r.value
    cells: dict[tuple[Row, str | int], list[float]] = {}
    for (row, labels, _), value in latest.items():
        cells.setdefault((row, labels), []).append(value)
    return cells


def heading(results: Sequence[Result], metric: str) -> str:
    """Return the names of the data and the metric, and what was scored where that is one split."""
    data = dict.fromkeys(result.data for result in results)
    return ", ".join([*data, metric.replace("_", " "), *_scored(results)])


def _scored(results: Sequence[Result]) -> list[str]:
    """Return the only split, with its size where that is known; nothing of several splits."""
    splits = {result.split for result in results}
    if len(splits) != 1:
        return []
    split = splits.pop()
    counts = {len(result.predictions) for result in results if result.predictions is not None}
    return [f"{counts.pop():,} {split} images" if len(counts) == 1 else split]


def _group(row: Row) -> tuple[str, str]:
    protocol, _, split = row
    return protocol, split


def row_order(row: Row) -> tuple[Any, ...]:
    """Return what rows are sorted by: protocol by protocol, the method before its baselines."""
    features = row[1]
    place = BASELINES.index(features) + 1 if features in BASELINES else 0
    return (*_group(row), place, features)


def amount_order(amount: str | int) -> tuple[int, float]:
    """Return what amounts are sorted by: numbers per class first, shares next, all of them last."""
    if isinstance(amount, int):
        return (0, amount)
    return (1, float(amount.removesuffix("%"))) if amount.endswith("%") else (2, 0)


def amount_name(amount: str | int) -> str:
    """Return an amount of labels in words."""
    if isinstance(amount, int):
        return f"{amount} per class"
    return "all labels" if amount == "all" else f"{amount} of labels"


def _percent(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{100 * statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} +- {100 * statistics.stdev(values):.1f}"
