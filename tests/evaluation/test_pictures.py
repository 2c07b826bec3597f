"""What is drawn, read off the figure; how it looks was judged by eye."""

import statistics
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from PIL import Image
from sklearn.metrics import confusion_matrix

from byol.evaluation import pictures
from byol.evaluation.pictures import draw_confusion, plot_labels
from byol.evaluation.report import class_report
from byol.evaluation.results import Result

RESULT = Result("logistic", "byol", "all", None, "top1", 0.9, "test", 0, 100, "digits", 0.1)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The axes of each figure that is saved."""
    axes: list[Axes] = []
    original = pictures.save_figure

    def save(figure: Any, file: Path) -> None:
        original(figure, file)
        axes.append(figure.axes[0])

    monkeypatch.setattr(pictures, "save_figure", save)
    return axes


def report_of(names: list[str], images: int = 900) -> tuple[dict[str, Any], np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(len(names), (images,), generator=generator)
    wrong = (truth + torch.randint(1, 3, (images,), generator=generator)) % len(names)
    given = torch.where(torch.rand(images, generator=generator) < 0.7, truth, wrong)
    report = class_report(replace(RESULT, predictions=given), truth, names)
    return report, confusion_matrix(truth, given, labels=range(len(names)), normalize="true")


@pytest.mark.parametrize("count", [2, 10, 47, 100])
def test_rows_are_shares_and_classes_have_their_names(count: int, drawn: list[Axes], tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(count)]
    report, shares = report_of(names)
    draw_confusion(tmp_path / "picture.png", report)
    axes = drawn[0]
    np.testing.assert_allclose(axes.images[0].get_array(), shares, atol=1e-12)
    assert [text.get_text() for text in axes.get_xticklabels()] == names
    assert [text.get_text() for text in axes.get_yticklabels()] == names
    cells = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    matrix = report["confusion"]
    counts = {(i, j): str(n) for i, row in enumerate(matrix) for j, n in enumerate(row) if n}
    assert cells == (counts if count <= 20 else {})
    assert "digits, 900 test images" in axes.get_title() and f"{report['top1']:.1%}" in axes.get_title()
    no_two_overlap([text.get_window_extent() for text in axes.get_xticklabels()])
    no_two_overlap([text.get_window_extent() for text in axes.get_yticklabels()])
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG" and max(picture.size) < 2600


def no_two_overlap(boxes: list[Any]) -> None:
    assert not any(first.overlaps(second) for first, second in pairwise(boxes))


def test_many_classes_get_numbers_and_odd_names_are_drawn(drawn: list[Axes], tmp_path: Path) -> None:
    draw_confusion(tmp_path / "many.png", report_of([f"n{index}" for index in range(300)])[0])
    assert 2 < len(drawn[0].get_xticklabels()) < 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(tmp_path / "odd.png", report_of(["$^$ bill", "猫", "a" * 60, "b"])[0])
    shown = [text.get_text() for text in drawn[1].get_xticklabels()]
    assert shown[:2] == ["$^$ bill", "猫"] and shown[2].endswith("…") and len(shown[2]) == 20


def experiment(amounts: tuple[str | int, ...]) -> list[Result]:
    """Frozen, fine-tuned and from scratch, three draws where labels are few."""
    lines = [("logistic", "byol"), ("logistic", "random-init"), ("logistic", "pixels")]
    lines += [("finetune", "byol"), ("finetune", "random-init"), ("knn", "byol")]
    return [
        replace(
            RESULT,
            protocol=protocol,
            features=features,
            labels=amount,
            draw=draw,
            value=0.9 - 0.1 * line - 0.05 * step + 0.01 * (draw or 0) ** 2,
        )
        for line, (protocol, features) in enumerate(lines)
        for step, amount in enumerate(amounts)
        for draw in ([None] if amount == "all" else range(3))
    ]


def test_a_line_per_protocol_and_features_with_bars_over_draws(drawn: list[Axes], tmp_path: Path) -> None:
    results = experiment(("1%", "10%", "all"))
    other = [replace(result, metric="mean_per_class", value=0.0) for result in results]
    plot_labels(tmp_path / "labels.png", [*results, *other])
    axes = drawn[0]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1%", "10%", "all"]
    lines = dict(zip((line.get_label() for line in axes.containers), axes.containers, strict=True))
    names = ["frozen, byol", "frozen, random-init", "frozen, pixels", "fine-tuned, byol", "from scratch"]
    assert set(lines) == {*names, "frozen (kNN), byol"}
    # One colour a protocol, one style of line the features: no two lines look alike.
    looks = {(to_hex(line[0].get_color()), line[0].get_linestyle()) for line in lines.values()}
    assert len(looks) == len(lines)
    scratch = [r for r in results if (r.protocol, r.features) == ("finetune", "random-init")]
    for place, amount in zip((1, 10, 100), ("1%", "10%", "all"), strict=True):
        values = [100 * r.value for r in scratch if r.labels == amount]
        line, _, (bars,) = lines["from scratch"]
        index = [1, 10, 100].index(place)
        assert line.get_xdata()[index] == place
        assert line.get_ydata()[index] == pytest.approx(statistics.mean(values))
        segment = bars.get_segments()[index]
        assert len(segment) == (2 if len(values) > 1 else 0)
        if len(values) > 1:
            assert (segment[1, 1] - segment[0, 1]) / 2 == pytest.approx(statistics.stdev(values))


def test_numbers_per_class_and_both_kinds_of_amounts(drawn: list[Axes], tmp_path: Path) -> None:
    plot_labels(tmp_path / "numbers.png", experiment((1, 5, 20)))
    plot_labels(tmp_path / "both.png", experiment((1, 5, "10%", "all")))
    plot_labels(tmp_path / "single.png", experiment(("all",)))
    numbers, both, single = drawn
    assert numbers.get_xscale() == "log" and list(numbers.get_xticks()) == [1, 5, 20]
    assert both.get_xscale() == "linear" and list(both.get_xticks()) == [0, 1, 2, 3]
    words = ["1 per class", "5 per class", "10% of labels", "all labels"]
    assert [text.get_text() for text in both.get_xticklabels()] == words
    assert len(single.containers) == 6


def test_a_protocol_that_stops_early_is_a_shorter_line(drawn: list[Axes], tmp_path: Path) -> None:
    results = experiment(("1%", "all"))
    linear = replace(RESULT, protocol="linear", value=0.7)
    plot_labels(tmp_path / "labels.png", [*results, linear], "top1")
    lengths = {line.get_label(): len(line[0].get_xdata()) for line in drawn[0].containers}
    assert lengths["frozen (linear), byol"] == 1 and lengths["frozen, byol"] == 2
