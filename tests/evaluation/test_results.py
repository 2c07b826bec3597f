import io
import json
from dataclasses import fields, replace

import pytest
import torch
from rich.console import Console

from byol.evaluation.results import Result, print_table, table

RESULT = Result("knn", "byol", "all", None, "top1", 0.9, "test", 0, 100, "digits", 0.1, {"k": 20})


def printed(results: list[Result], metric: str = "top1") -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(table(results, metric))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_fields_are_the_contract() -> None:
    names = "protocol features labels draw metric value split seed epoch data seconds settings"
    assert list(RESULT.to_dict()) == names.split()
    assert [field.name for field in fields(Result)] == [*names.split(), "predictions"]
    assert json.loads(json.dumps(RESULT.to_dict())) == RESULT.to_dict()


def test_mean_and_deviation_over_draws() -> None:
    draws = [replace(RESULT, labels=5, draw=draw, value=value) for draw, value in enumerate((0.5, 0.6, 0.7))]
    text = printed([RESULT, *draws])
    assert "60.0 +- 10.0" in text
    assert "90.0" in text
    assert text.index("5 per class") < text.index("all labels")


def test_plain_text_without_a_terminal() -> None:
    assert "\x1b" not in printed([RESULT])


def test_baselines_stand_below_their_method_and_protocols_apart() -> None:
    results = [
        replace(RESULT, protocol=protocol, features=features)
        for features in ("pixels", "random-init", "byol")
        for protocol in ("knn", "logistic")
    ]
    rows = [line.split()[:2] for line in printed(results).splitlines() if "90.0" in line]
    expected = [[p, f] for p in ("knn", "logistic") for f in ("byol", "random-init", "pixels")]
    assert rows == expected


def test_an_absent_number_and_a_repeated_one() -> None:
    other = replace(RESULT, features="pixels", labels=1, draw=0, value=0.25)
    text = printed([RESULT, replace(RESULT, value=0.8), other])
    assert "80.0" in text
    assert "90.0" not in text
    assert "+-" not in text
    assert [line.split()[-2:] for line in text.splitlines() if "pixels" in line] == [["25.0", "-"]]


@pytest.mark.parametrize("amounts", [("all", "1%", 10, 1, 5)])
def test_columns_ascend(amounts: tuple[str | int, ...]) -> None:
    text = printed([replace(RESULT, labels=amount) for amount in amounts])
    places = [text.index(word) for word in ("1 per", "5 per", "10 per", "1% of", "all labels")]
    assert places == sorted(places)


def test_a_pipe_gets_plain_lines_however_wide(capsys: pytest.CaptureFixture[str]) -> None:
    amounts = ("1%", 1, 2, 5, 10, 20, "all")
    draws = [replace(RESULT, labels=amount, draw=draw) for amount in amounts for draw in range(2)]
    print_table(draws)
    lines = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(lines)
    row = next(line for line in lines if "byol" in line)
    assert row.count("90.0 +- 0.0") == len(amounts)


def test_what_is_the_same_everywhere_stands_in_the_title() -> None:
    assert printed([RESULT]).splitlines()[0].strip() == "digits, top1, test, percent"
    many = replace(RESULT, predictions=torch.zeros(10_000))
    assert printed([many]).splitlines()[0].strip() == "digits, top1, 10,000 test images, percent"
    both = printed([many, replace(many, split="holdout", value=0.8)])
    assert both.splitlines()[0].strip() == "digits, top1, percent"
    assert [line.split()[2:] for line in both.splitlines() if "byol" in line] == [
        ["holdout", "80.0"],
        ["test", "90.0"],
    ]


def test_one_metric_is_shown() -> None:
    results = [RESULT, replace(RESULT, metric="top5", value=0.99)]
    results.append(replace(RESULT, metric="mean_per_class", value=0.85))
    for metric, value in (("top1", "90.0"), ("mean_per_class", "85.0")):
        lines = printed(results, metric).splitlines()
        assert lines[0].strip() == f"digits, {metric.replace('_', ' ')}, test, percent"
        assert [line.split() for line in lines if "byol" in line] == [["knn", "byol", value]]
