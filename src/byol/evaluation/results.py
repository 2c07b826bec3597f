"""One record of results.json, and the table that is printed of several."""

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

BASELINES = ("random-init", "pixels")


@dataclass(frozen=True)
class Result:
    """One measured number, with all that is needed to know what it is."""

    protocol: str
    """knn, logistic, linear, ..."""
    features: str
    """The method that made the backbone, or one of `BASELINES`."""
    labels: str | int
    """"all", a number per class, or a share such as "1%"."""
    draw: int | None
    """Which draw of few labels, from 0; None with all labels."""
    metric: str
    """top1 or top5."""
    value: float
    """0-1."""
    split: str
    """What was scored: test or holdout."""
    seed: int | None
    """Of the pretraining."""
    epoch: float | None
    """Of the weights: 0 for random-init, None for pixels."""
    data: str
    seconds: float
    """Spent on fitting and scoring, without the extraction of features."""
    settings: dict[str, Any] = field(default_factory=dict)
    """k, temperature, C, lr, ..."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def table(results: Sequence[Result]) -> "Table":
    """Lay results out: a row per protocol and features, a column per amount of labels.

    Percent; mean +- standard deviation where there are several draws. Baselines stand below the
    method that they belong to. Top-5 accuracies are left to results.json. Of results that differ in
    value only, the last counts.
    """
    from rich import box
    from rich.table import Table

    cells = _cells(results)
    amounts = sorted({amount for _, amount in cells}, key=_amount_order)
    rows = sorted({row for row, _ in cells}, key=_row_order)
    shown = [i for i, name in enumerate(_HEADINGS) if name in _ALWAYS or len({row[i] for row in rows}) > 1]
    laid_out = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=_title(results, rows), title_justify="left")
    for index in shown:
        laid_out.add_column(_HEADINGS[index], no_wrap=True)
    for amount in amounts:
        laid_out.add_column(_amount_heading(amount), justify="right")
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        values = [_percent(cells.get((row, amount), [])) for amount in amounts]
        ends_group = after is not None and _group(after) != _group(row)
        laid_out.add_row(*(row[index] for index in shown), *values, end_section=ends_group)
    return laid_out


def print_table(results: Sequence[Result]) -> None:
    """Print the table to standard output: plain text, however wide, where that is no terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table(results))


_PIPE_WIDTH = 200
_HEADINGS = ("protocol", "features", "metric", "split")
_ALWAYS = ("protocol", "features")
_Row = tuple[str, str, str, str]
"""protocol, features, metric, split"""


def _cells(results: Iterable[Result]) -> dict[tuple[_Row, str | int], list[float]]:
    latest: dict[tuple[Any, ...], float] = {}
    for r in results:
        if r.metric == "top5":
            continue
        row = (r.protocol, r.features, r.metric, r.split)
        latest[row, r.labels, (r.draw, r.seed, r.epoch, r.data)] = r.value
    cells: dict[tuple[_Row, str | int], list[float]] = {}
    for (row, labels, _), value in latest.items():
        cells.setdefault((row, labels), []).append(value)
    return cells


def _title(results: Sequence[Result], rows: Sequence[_Row]) -> str:
    """Name the data, and the metric and split where there is only one."""
    constant = [next(iter(names)) for i in (2, 3) if len(names := {row[i] for row in rows}) == 1]
    return ", ".join([*dict.fromkeys(result.data for result in results), *constant, "percent"])


def _group(row: _Row) -> tuple[str, str, str]:
    protocol, _, metric, split = row
    return protocol, metric, split


def _row_order(row: _Row) -> tuple[Any, ...]:
    features = row[1]
    place = BASELINES.index(features) + 1 if features in BASELINES else 0
    return (*_group(row), place, features)


def _amount_order(amount: str | int) -> tuple[int, float]:
    """Numbers per class first, shares next, all of them last."""
    if isinstance(amount, int):
        return (0, amount)
    return (1, float(amount.removesuffix("%"))) if amount.endswith("%") else (2, 0)


def _amount_heading(amount: str | int) -> str:
    if isinstance(amount, int):
        return f"{amount} per class"
    return "all labels" if amount == "all" else f"{amount} of labels"


def _percent(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{100 * statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} +- {100 * statistics.stdev(values):.1f}"
