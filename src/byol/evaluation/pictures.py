"""Pictures of results: a confusion matrix, and accuracy by the number of labels."""

import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from byol.evaluation.results import Result, Row, amount_name, amount_order, heading, row_order, values_by_cell
from byol.rundir import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NUMBERED, _NAMED = 20, 120
"""Up to so many classes the cells show counts, and the axes show names."""
_NAME_LENGTH, _DATA_LENGTH = 20, 40
_FROZEN = {"logistic": "frozen", "linear": "frozen (linear)", "knn": "frozen (kNN)"}
_COLOURS = {"logistic": "tab:blue", "finetune": "tab:orange", "knn": "tab:green", "linear": "tab:purple"}
_STYLES = {"random-init": "s--", "pixels": "^:"}


def draw_confusion(file: Path, report: Mapping[str, Any]) -> None:
    """Draw a confusion matrix; the colour of a cell is its share of its row.

    Args:
        file: PNG to write.
        report: as `byol.evaluation.report.class_report` returns it.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    matrix = np.array(report["confusion"])  # [K,K]
    room = (0.45 if len(matrix) <= _NUMBERED else 0.14) * min(len(matrix), _NAMED)
    figure = Figure((room + 4.5, room + 3), dpi=110, layout="compressed")
    axes = figure.subplots()
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    _draw_shares(figure, axes, shares)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(_confusion_title(report), parse_math=False, fontsize=10)
    # The matrix gets all but some 2 inches of the height.
    _name_classes(axes, [entry["name"] for entry in report["classes"]], (room + 1) / len(matrix) * 72)
    if len(matrix) <= _NUMBERED:
        for row, column in zip(*matrix.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour, fontsize=8)
    save_figure(figure, file)


def _draw_shares(figure: "Figure", axes: "Axes", shares: NDArray[np.float64]) -> None:
    from matplotlib.colors import PowerNorm

    # Colours by square root: confusions of a few percent show beside a diagonal near 100 %.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    bar = figure.colorbar(image, ax=axes, shrink=0.7, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    bar.set_label("share of the true class")


def _confusion_title(report: Mapping[str, Any]) -> str:
    data = report["data"] if len(report["data"]) <= _DATA_LENGTH else f"…{report['data'][1 - _DATA_LENGTH :]}"
    return (
        f"{data}, {report['images']:,} {report['split']} images\n{report['protocol']}, {report['features']}: "
        f"top-1 {report['top1']:.1%}, mean per class {report['mean_per_class']:.1%}"
    )


def _name_classes(axes: "Axes", names: Sequence[str], cell: float) -> None:
    """Write every class on both axes where there is room, else leave numbers in round steps.

    Args:
        axes: with the matrix.
        names: of all classes.
        cell: side of a cell in points.
    """
    if len(names) > _NAMED:
        return
    size = 9.0 if len(names) <= _NUMBERED else 6.5
    shown = [name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…" for name in names]
    lies = 0.6 * size * max(map(len, shown)) <= cell  # letters are about 0.6 of their size wide
    style: dict[str, Any] = {"fontsize": size, "parse_math": False}  # a "$" in a name is a dollar
    axes.set_xticks(range(len(names)), shown, rotation=0 if lies else 90, **style)
    axes.set_yticks(range(len(names)), shown, **style)


def plot_labels(file: Path, results: Sequence[Result], metric: str = "top1") -> None:
    """Draw accuracy by the number of labels: a line per protocol and features, mean +- standard
    deviation where there are several draws.

    Shares of the labels, or numbers per class, lie on a logarithmic axis; both together, or numbers
    beside all labels, whose ratio the results do not tell, at equal steps.

    Args:
        file: PNG to write.
        results: of one data set; `Result(**record)` makes one of a record in results.json.
        metric: which results count.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    cells = values_by_cell(results, metric)
    figure = Figure((8, 5), dpi=110, layout="compressed")
    axes = figure.subplots()
    places = _place_amounts(axes, sorted({amount for _, amount in cells}, key=amount_order))
    for row in sorted({row for row, _ in cells}, key=row_order):
        values = {place: cells[row, amount] for amount, place in places.items() if (row, amount) in cells}
        _draw_line(axes, row, values)
    several = any(len(values) > 1 for values in cells.values())
    spread = " (bars: standard deviation of draws)" if several else ""
    axes.set_title(heading(results, metric), parse_math=False, fontsize=10)
    axes.set_ylabel(f"percent{spread}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center")
    save_figure(figure, file)


def _place_amounts(axes: "Axes", amounts: Sequence[str | int]) -> dict[str | int, float]:
    """Lay out the horizontal axis; return where each amount stands on it."""
    counts = [isinstance(amount, int) for amount in amounts]
    if any(counts) and not all(counts):
        axes.set_xticks(range(len(amounts)), [amount_name(amount) for amount in amounts])
        return {amount: float(place) for place, amount in enumerate(amounts)}
    places = {amount: 100.0 if amount == "all" else float(str(amount).rstrip("%")) for amount in amounts}
    axes.set(xscale="log", xlabel="labels per class" if any(counts) else "share of the labels")
    axes.set_xticks(list(places.values()), [str(amount) for amount in amounts])
    axes.set_xticks([], minor=True)
    return places


def _draw_line(axes: "Axes", row: Row, values: Mapping[float, Sequence[float]]) -> None:
    protocol, features, _ = row
    style = _STYLES.get(features, "o-")
    means = [100 * statistics.fmean(draws) for draws in values.values()]
    spreads = [100 * statistics.stdev(draws) if len(draws) > 1 else math.nan for draws in values.values()]
    axes.errorbar(
        list(values),
        means,
        spreads,
        fmt=style,
        label=_line_name(protocol, features),
        color=_COLOURS.get(protocol),
        capsize=3,
    )


def _line_name(protocol: str, features: str) -> str:
    if protocol == "finetune":
        return "from scratch" if features == "random-init" else f"fine-tuned, {features}"
    return f"{_FROZEN.get(protocol, protocol)}, {features}"


def save_figure(figure: "Figure", file: Path) -> None:
    """Write a figure as PNG.

    Raises:
        UserError: the file cannot be written.
    """
    with written_whole(file) as temporary, warnings.catch_warnings():
        # Names in other scripts than the font's become boxes; the JSON beside them has them right.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(temporary, format="png")
