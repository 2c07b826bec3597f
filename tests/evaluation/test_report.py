import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, classification_report
from sklearn.metrics import confusion_matrix as reference_matrix
from torch import nn

from byol.data.source import Source
from byol.errors import UserError
from byol.evaluation import run as module
from byol.evaluation.report import class_report, confusion_matrix, write_report
from byol.evaluation.results import Result
from byol.evaluation.run import evaluate
from byol.rundir import RunDirectory

MakeRun = Callable[..., RunDirectory]
MakeNet = Callable[..., nn.Module]
RESULT = Result("knn", "byol", "all", None, "top1", 0.9, "test", 0, 100, "digits", 0.1, {"k": 20})


def drawn(classes: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    truth = torch.randint(classes, (count,), generator=generator)
    wrong = torch.randint(classes, (count,), generator=generator)
    return truth, torch.where(torch.rand(count, generator=generator) < 0.6, truth, wrong)


@pytest.mark.parametrize(("classes", "count"), [(2, 31), (10, 400), (100, 700)])
def test_every_value_equals_scikit_learn(classes: int, count: int) -> None:
    truth, given = drawn(classes, count)
    names = [f"class {index}" for index in range(classes)]
    report = class_report(replace(RESULT, predictions=given), truth, names)
    numbers = list(range(classes))
    expected = classification_report(
        truth, given, labels=numbers, target_names=names, output_dict=True, zero_division=0
    )
    for entry in report["classes"]:
        reference = expected[entry["name"]]
        assert entry["support"] == reference["support"]
        for key, name in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert entry[key] == pytest.approx(reference[name], abs=1e-12)
    assert report["confusion"] == reference_matrix(truth, given, labels=numbers).tolist()
    assert report["mean_per_class"] == pytest.approx(balanced_accuracy_score(truth, given), abs=1e-12)
    assert report["top1"] == pytest.approx(float((truth == given).double().mean()), abs=1e-12)
    assert json.loads(json.dumps(report)) == report


def test_rows_are_the_truth_whatever_the_order_of_the_images() -> None:
    truth, given = drawn(4, 57)
    counted = [[0] * 4 for _ in range(4)]
    for true, predicted in zip(truth.tolist(), given.tolist(), strict=True):
        counted[true][predicted] += 1
    assert confusion_matrix(truth, given).tolist() == counted
    order = torch.randperm(57)
    assert confusion_matrix(truth[order], given[order]).tolist() == counted
    assert counted != [list(column) for column in zip(*counted, strict=True)]


def test_classes_without_images_or_predictions_or_names() -> None:
    truth, given = torch.tensor([0, 0, 2, 4]), torch.tensor([0, 1, 0, 4])
    report = class_report(replace(RESULT, predictions=given), truth, ["a", "b", "c", "d"])
    assert [entry["name"] for entry in report["classes"]] == ["a", "b", "c", "d", "4"]
    assert [entry["support"] for entry in report["classes"]] == [2, 0, 1, 0, 1]
    assert [entry["recall"] for entry in report["classes"]] == [0.5, 0, 0, 0, 1]
    assert [entry["precision"] for entry in report["classes"]] == [0.5, 0, 0, 0, 1]
    assert report["mean_per_class"] == pytest.approx(0.5)  # a, c and 4


def test_the_files_are_read_back_and_replaced(tmp_path: Path) -> None:
    for epoch in (1, 2):
        truth, given = drawn(10, 100 + epoch)
        result = replace(RESULT, predictions=given, epoch=epoch)
        write_report(tmp_path / "reports", result, truth, "abcdefghij")
    assert sorted(file.name for file in (tmp_path / "reports").iterdir()) == ["knn.json", "knn.png"]
    text = (tmp_path / "reports" / "knn.json").read_text()
    assert json.loads(text) == class_report(result, truth, "abcdefghij")
    assert len(text.splitlines()) == 2 + 10 + 2 * (10 + 2)  # a line per value, class and row
    with Image.open(tmp_path / "reports" / "knn.png") as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 500


def test_a_run_reports_the_whole_test_split_of_its_own_features(
    make_run: MakeRun, make_net: MakeNet, digits: Source
) -> None:
    run = make_run()
    results = evaluate(
        run.path, net=make_net(), protocol="knn", baselines=True, report=True, plot=True, device="cpu"
    )
    assert sorted(file.name for file in run.reports.iterdir()) == ["knn.json", "knn.png", "labels.png"]
    report = json.loads((run.reports / "knn.json").read_text())
    own = {result.metric: result for result in results if result.features == "byol"}
    for name in ("protocol", "features", "data", "split", "seed", "epoch", "settings"):
        assert report[name] == getattr(own["top1"], name)
    for metric in ("top1", "mean_per_class"):
        assert report[metric] == pytest.approx(own[metric].value, abs=1e-12)
    # 500 images are no multiple of a batch of 256: none is left out, each counts the same.
    assert digits.test is not None and digits.test.labels is not None
    assert report["images"] == 500
    assert [sum(row) for row in report["confusion"]] == digits.test.labels.bincount().tolist()
    assert sum(report["confusion"][digit][digit] for digit in range(10)) / 500 == own["top1"].value
    assert [entry["name"] for entry in report["classes"]] == [str(digit) for digit in range(10)]


def test_a_bundle_reports_beside_its_out(make_run: MakeRun, make_net: MakeNet, tmp_path: Path) -> None:
    bundle, out = make_run().model, tmp_path / "numbers" / "mine.json"
    evaluate(
        bundle, net=make_net(), data="digits", protocol="knn", report=True, plot=True, device="cpu", out=out
    )
    written = {str(file.relative_to(out.parent)) for file in out.parent.rglob("*") if file.is_file()}
    names = {"mine-reports/knn.json", "mine-reports/knn.png", "mine-reports/labels.png"}
    assert written == {"mine.json", *names}
    assert sorted(file.name for file in bundle.iterdir()) == ["config.json", "model.safetensors"]


def test_reports_that_cannot_be_are_refused_before_anything_is_measured(
    make_run: MakeRun, make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    monkeypatch.setattr(module, "open_with_data", None)
    with pytest.raises(UserError, match="add all to --labels"):
        evaluate(run.path, net=make_net(), labels="5", report=True)
    with pytest.raises(UserError, match="--out FILE"):
        evaluate(run.model, net=make_net(), data="digits", plot=True)
    assert not run.reports.exists() and not run.results_file.exists()
