import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from byol import pretrain
from byol.augment.evaluation import Preprocess
from byol.bundle import save_bundle
from byol.cli import main
from byol.core.backbone import Backbone
from byol.data.images import TensorImages
from byol.data.source import Source
from byol.data.splits import draw_labels, holdout_split
from byol.errors import UserError
from byol.evaluation import target
from byol.evaluation.classifier import Classifier
from byol.evaluation.results import Result
from byol.evaluation.run import evaluate
from byol.evaluation.supervised import Setting, Supervision
from byol.rundir import RunDirectory
from byol.types import ImageSet

MakeRun = Callable[..., RunDirectory]
MakeNet = Callable[..., nn.Module]
QUICK = {"protocol": "finetune", "finetune_rates": "1", "finetune_epochs": "2", "device": "cpu"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def timeless(results: list[Result]) -> list[Result]:
    return [replace(result, seconds=0) for result in results]


def test_records_draws_and_lines_of_progress(
    make_run: MakeRun, make_net: MakeNet, digits: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    model = contents(run.model)
    grid = {"finetune_rates": "0.1,1", "finetune_epochs": "1,2", "labels": "10", "draws": 2}
    torch.manual_seed(1)
    results = evaluate(run.path, net=make_net(), baselines=True, **{**QUICK, **grid})  # type: ignore[arg-type]
    # byol and random-init (pixels have no weights) x 2 draws x (top1, mean_per_class, top5)
    assert len(results) == 12
    assert run.results() == [result.to_dict() for result in results]
    first = results[0]
    assert (first.protocol, first.features, first.labels, first.draw) == ("finetune", "byol", 10, 0)
    assert (first.metric, first.split, first.seed, first.epoch) == ("top1", "test", 3, 7)
    settings = first.settings
    assert {"lr", "epochs", "batch_size", "bn_momentum", "freeze", "grid", "seed"} == settings.keys()
    asked = [(0.1, 1), (0.1, 2), (1.0, 1), (1.0, 2)]
    assert [(tried["lr"], tried["epochs"]) for tried in settings["grid"]] == asked
    by_features = {r.features: r for r in results if r.metric == "top1" and r.draw == 0}
    assert set(by_features) == {"byol", "random-init"}
    assert by_features["random-init"].epoch == 0
    assert by_features["random-init"].value != by_features["byol"].value
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("finetune byol, 80 labels, lr 0.1, 1 epochs, ")
    assert sum("the last fit" in line for line in lines) == 4
    # Nothing but results and draws of labels: the bundle is as it was, no vectors were extracted.
    assert contents(run.model) == model
    assert sorted(path.relative_to(run.cache).as_posix() for path in run.cache.rglob("*.*")) == [
        "splits/digits-10-draw0-seed0.json",
        "splits/digits-10-draw1-seed0.json",
    ]
    assert digits.train.labels is not None
    written = json.loads((run.cache / "splits" / "digits-10-draw1-seed0.json").read_text())
    assert written["indices"] == draw_labels(digits.train.labels, 10, 1, 0).tolist()
    torch.manual_seed(2)
    again = evaluate(run.path, net=make_net(), baselines=True, **{**QUICK, **grid})  # type: ignore[arg-type]
    assert timeless(again) == timeless(results)


@pytest.mark.parametrize("labels", ["all", "10"])
def test_the_test_split_is_read_once_and_its_labels_decide_nothing(
    make_run: MakeRun, make_net: MakeNet, digits: Source, monkeypatch: pytest.MonkeyPatch, labels: str
) -> None:
    scored: list[int] = []
    fitted: list[list[int]] = []
    scores, fit = Supervision.scores, Supervision.fitted

    def watched_scores(self: Supervision, classifier: Classifier, images: ImageSet) -> Tensor:
        scored.append(len(images))
        return scores(self, classifier, images)

    def watched_fit(self: Supervision, indices: Tensor, setting: Setting) -> Classifier:
        fitted.append(indices.tolist())
        return fit(self, indices, setting)

    monkeypatch.setattr(Supervision, "scores", watched_scores)
    monkeypatch.setattr(Supervision, "fitted", watched_fit)
    run = make_run(holdout=0.2)
    asked = {**QUICK, "finetune_rates": "0.01,2", "labels": labels, "draws": 1}
    honest = evaluate(run.path, net=make_net(), **asked)  # type: ignore[arg-type]
    assert digits.train.labels is not None
    if labels == "all":
        fit_indices, held = holdout_split(1297, digits.train.labels, 0.2, 0)
        together = torch.arange(1297)
    else:
        together = draw_labels(digits.train.labels, 10, 0, 0)
        fit_indices, held = torch.tensor(fitted[0]), torch.arange(20)
        assert set(fitted[0]) < set(together.tolist())
        assert len(fitted[0]) == 80
    assert fitted == [fit_indices.tolist(), fit_indices.tolist(), together.tolist()]
    assert scored == [len(held), len(held), 500]
    test = digits.test
    assert isinstance(test, TensorImages)
    assert test.labels is not None
    shuffled = test.labels[torch.randperm(500, generator=torch.Generator().manual_seed(0))]
    other = replace(digits, test=TensorImages(test.images, shuffled, test.class_names, test.keys))
    monkeypatch.setattr(target, "open_source", lambda *a, **k: other)
    poisoned = evaluate(run.path, net=make_net(), **asked)  # type: ignore[arg-type]
    assert honest[0].settings == poisoned[0].settings
    assert poisoned[0].value < 0.2 < honest[0].value


def test_a_class_with_one_label_and_a_frozen_stage(make_run: MakeRun, make_net: MakeNet) -> None:
    grid = {**QUICK, "finetune_rates": "0.1,1", "labels": "1", "draws": 1}
    results = evaluate(make_run().path, net=make_net(), freeze="0,1", **grid)  # type: ignore[arg-type]
    assert results[0].settings["freeze"] == ["0", "1"]
    assert results[0].settings["lr"] == 1.0
    assert [tried["held_out"] for tried in results[0].settings["grid"]] == [None, None]


def test_photographs_from_a_folder(make_run: MakeRun, make_net: MakeNet, photographs: Path) -> None:
    preprocess = Preprocess(8, (0.5,) * 3, (0.25,) * 3)
    backbone = Backbone(make_net(1, 3), 8, channels=3, preprocess=preprocess)
    bundle = make_run(backbone=backbone).model
    results = evaluate(bundle, net=make_net(1, 3), data=photographs, **QUICK)  # type: ignore[arg-type]
    assert {(r.split, r.labels) for r in results} == {("holdout", "all")}
    assert [r.metric for r in results] == ["top1", "mean_per_class"]
    assert sorted(file.name for file in bundle.iterdir()) == ["config.json", "model.safetensors"]


def test_refusals(make_run: MakeRun, make_net: MakeNet, preprocess: Preprocess) -> None:
    run = make_run()
    unlabelled = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    cases: list[tuple[dict[str, object], str]] = [
        ({"finetune_rates": "0.1,fast"}, "--finetune-rates takes learning rates above 0.*not '0.1,fast'"),
        ({"finetune_rates": "0"}, "--finetune-rates takes"),
        ({"finetune_rates": ","}, "--finetune-rates is empty"),
        ({"finetune_epochs": "1.5"}, "--finetune-epochs takes whole numbers above 0.*not '1.5'"),
        ({"finetune_epochs": "0"}, "--finetune-epochs takes"),
        ({"freeze": "0,stem"}, "no layer 'stem'"),
        (
            {"freeze": "0", "protocol": "knn"},
            "--finetune-rates concerns --protocol finetune or segmentation only",
        ),
        ({"data": unlabelled}, "has no labels"),
        ({"labels": "500"}, "fewer than the 500"),
        ({"protocol": "finetun"}, "Did you mean 'finetune'"),
    ]
    for settings, message in cases:
        with pytest.raises(UserError, match=message):
            evaluate(run.path, net=make_net(), **{**QUICK, **settings})  # type: ignore[arg-type]
    broken = make_net()
    with torch.no_grad():
        broken[0].weight[0] = torch.nan  # type: ignore[index]
    save_bundle(run.model, Backbone(broken, 8, channels=1, preprocess=preprocess), {})
    with pytest.raises(UserError, match="weights were broken before"):
        evaluate(run.path, net=make_net(), **QUICK)  # type: ignore[arg-type]
    assert not run.results_file.exists()


def test_flags_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(tmp_path / "absent"), "--protocol", "finetune"]
    for rates, expected in (("0.05", "no such folder"), ("0.05,1e-3", "no such folder"), ("-1", "above 0")):
        assert main([*words, "--finetune-rates", rates, "--finetune-epochs", "30"]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_a_pretrained_network_learns_the_digits(tmp_path: Path, tiny: dict[str, object]) -> None:
    settings = {**tiny, "epochs": "2", "knn_every": "0", "out": str(tmp_path / "run")}
    run = pretrain(**settings)
    before = contents(run.path / "model")
    results = evaluate(
        run.path, protocol="finetune", finetune_rates="0.5,1", finetune_epochs="15", device="cpu"
    )
    assert results[0].metric == "top1"
    assert results[0].value > 0.9
    assert contents(run.path / "model") == before
