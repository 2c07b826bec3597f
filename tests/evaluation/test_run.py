import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from byol.augment.evaluation import Preprocess
from byol.bundle import load_backbone, save_bundle
from byol.config import EvaluateConfig
from byol.core.backbone import Backbone
from byol.data.images import TensorImages
from byol.data.source import Source
from byol.errors import UserError
from byol.evaluation import features as features_module
from byol.evaluation import logistic, measure, target
from byol.evaluation.outputs import Outputs
from byol.evaluation.request import parsed_request
from byol.evaluation.results import Result
from byol.evaluation.run import evaluate
from byol.evaluation.task import divide
from byol.rundir import RunDirectory

MakeRun = Callable[..., RunDirectory]
MakeNet = Callable[..., nn.Module]


def by_row(results: list[Result]) -> dict[tuple[object, ...], Result]:
    return {(r.protocol, r.features, r.labels, r.draw, r.metric): r for r in results}


def test_a_run_with_baselines(make_run: MakeRun, make_net: MakeNet) -> None:
    run = make_run()
    results = evaluate(run.path, net=make_net(), labels="1,all", draws=2, baselines=True, device="cpu")
    # 3 kinds of features x 2 protocols x (2 draws + all labels) x (top1, mean_per_class, top5)
    assert len(results) == len(by_row(results)) == 54
    assert run.results() == [result.to_dict() for result in results]
    first = by_row(results)["knn", "byol", "all", None, "top1"]
    assert (first.split, first.seed, first.epoch, first.data) == ("test", 3, 7, "digits")
    assert first.settings == {"k": 20, "temperature": 0.1}
    assert isinstance(first.epoch, int)
    assert {r.epoch for r in results if r.features == "random-init"} == {0}
    assert {r.epoch for r in results if r.features == "pixels"} == {None}
    rows = by_row(results)
    for features in ("byol", "random-init", "pixels"):
        assert rows["logistic", features, "all", None, "top1"].value > 0.9
        assert 0.2 < rows["logistic", features, 1, 0, "top1"].value < 0.9
        assert rows["knn", features, 1, 0, "top1"].value != rows["knn", features, 1, 1, "top1"].value
    assert len(list(run.cache.glob("*.safetensors"))) == 4  # trained and initial features, train and test
    splits = sorted(file.name for file in (run.cache / "splits").iterdir())
    assert splits == ["digits-1-draw0-seed0.json", "digits-1-draw1-seed0.json"]


def test_draws_beside_all_labels_are_told_to_change_nothing(
    make_run: MakeRun, make_net: MakeNet, capsys: pytest.CaptureFixture[str]
) -> None:
    run, message = make_run(), "--draws changes nothing: no labels are drawn where all are used\n"
    for settings, told in (({"draws": 5}, message), ({}, ""), ({"draws": 2, "labels": "all,1"}, "")):
        evaluate(run.path, net=make_net(), protocol="knn", device="cpu", **settings)
        assert capsys.readouterr().err == told


def test_results_repeat_and_are_appended(make_run: MakeRun, make_net: MakeNet) -> None:
    run = make_run()
    torch.manual_seed(1)
    first = evaluate(run.path, net=make_net(), labels="5,all", device="cpu")
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = evaluate(run.path, net=make_net(), labels="5,all", device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert [replace(r, seconds=0) for r in first] == [replace(r, seconds=0) for r in second]
    assert len(run.results()) == len(first) + len(second)


def test_the_cache_is_used_and_follows_the_weights(
    make_run: MakeRun, make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    extracted: list[int] = []
    original = features_module.extract
    monkeypatch.setattr(
        features_module, "extract", lambda *a, **k: (extracted.append(1), original(*a, **k))[1]
    )
    before = evaluate(run.path, net=make_net(), protocol="knn", device="cpu")
    evaluate(run.path, net=make_net(), protocol="logistic", device="cpu")
    assert len(extracted) == 2
    backbone = load_backbone(run.path, make_net())
    with torch.no_grad():
        backbone.net[4].weight.normal_(generator=torch.Generator().manual_seed(0))
    save_bundle(run.model, backbone, backbone.origin)
    after = evaluate(run.path, net=make_net(), protocol="knn", device="cpu")
    assert len(extracted) == 4
    assert before[0].value != after[0].value


def test_linear_clean_and_augmented(
    make_run: MakeRun, make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = measure.linear
    monkeypatch.setattr(measure, "linear", lambda problem, **k: short(problem, epochs=3, **k))
    run = make_run()
    for augment in (False, True):
        results = evaluate(
            run.path, net=make_net(), protocol="linear", labels="1,all", augment=augment, device="cpu"
        )
        assert [(r.labels, r.metric) for r in results] == [
            ("all", "top1"),
            ("all", "mean_per_class"),
            ("all", "top5"),
        ]
        assert results[0].settings["augment"] is augment
        assert results[0].value > (0.4 if augment else 0.85)


@pytest.mark.parametrize(
    ("protocol", "transfer", "chosen"),
    [
        ("logistic", False, ["C"]),
        ("logistic", True, ["l2", "grid"]),
        ("linear", False, ["lr", "epochs", "batch_size", "augment", "seed"]),
    ],
)
def test_test_labels_never_influence_a_choice(
    make_run: MakeRun,
    make_net: MakeNet,
    digits: Source,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    transfer: bool,
    chosen: list[str],
) -> None:
    run, short = make_run(), measure.linear
    monkeypatch.setattr(measure, "linear", lambda problem, **k: short(problem, epochs=3, **k))
    monkeypatch.setattr(logistic, "L2_GRID", logistic.L2_GRID[::5])
    settings: dict[str, Any] = {"protocol": protocol, "transfer": transfer, "device": "cpu"}
    honest = evaluate(run.path, net=make_net(), **settings)
    test = digits.test
    assert isinstance(test, TensorImages)
    assert test.labels is not None
    shuffled = test.labels[torch.randperm(500, generator=torch.Generator().manual_seed(0))]
    other = replace(digits, test=TensorImages(test.images, shuffled, test.class_names, test.keys))
    monkeypatch.setattr(target, "open_source", lambda *a, **k: other)
    poisoned = evaluate(run.path, net=make_net(), **settings)
    assert honest[0].settings == poisoned[0].settings and list(honest[0].settings) == chosen
    assert poisoned[0].value < 0.2 < honest[0].value


def test_every_image_of_the_split_counts_the_same(
    make_run: MakeRun, make_net: MakeNet, digits: Source
) -> None:
    """500 images are no multiple of a batch; a mean of batch means, or 256 of them, would differ."""
    results = evaluate(make_run().path, net=make_net(), protocol="knn", device="cpu")
    assert digits.test is not None and digits.test.labels is not None
    truth, given = digits.test.labels.tolist(), results[0].predictions
    assert given is not None and len(given) == len(truth) == 500
    right = [label == prediction for label, prediction in zip(truth, given.tolist(), strict=True)]
    values = {result.metric: result.value for result in results}
    assert values["top1"] == sum(right) / 500
    of_class = [[hit for hit, label in zip(right, truth, strict=True) if label == k] for k in range(10)]
    assert values["mean_per_class"] == pytest.approx(sum(sum(hits) / len(hits) for hits in of_class) / 10)
    assert abs(values["top1"] - (sum(right[:256]) / 256 + sum(right[256:]) / 244) / 2) > 1e-6


def test_a_start_from_given_weights_is_no_random_init(
    make_run: MakeRun, make_net: MakeNet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Supervised weights that a run started from must not pass for random ones."""
    run = make_run(backbone_weights="timm")
    results = evaluate(run.path, net=make_net(), protocol="knn", baselines=True, device="cpu")
    assert {result.features for result in results} == {"byol", "pixels"}
    assert "no random-init among the baselines: the run did not start" in capsys.readouterr().err
    own = make_run("own")
    own.write_config({**own.config(), "backbone": "<ResNet>"})  # whose weights may be anything
    evaluate(own.path, net=make_net(), protocol="knn", baselines=True, device="cpu")
    assert "random-init is your network as it came to pretraining" in capsys.readouterr().err


def test_the_network_keeps_its_modes_and_its_state(
    backbone: Backbone, digits: Source, preprocess: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No protocol may leave a frozen batch norm in train mode, or the network in eval mode."""
    short = measure.linear
    monkeypatch.setattr(measure, "linear", lambda problem, **k: short(problem, epochs=1, **k))
    backbone.train()
    backbone.net[1].eval()
    modes = [part.training for part in backbone.modules()]
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    representation = measure.Representation("byol", backbone, preprocess, None, None, None)
    asked = {"protocol": "knn,logistic,linear", "labels": "1,all", "draws": 1, "augment": True}
    request = parsed_request(EvaluateConfig(target="run", **asked))
    machine = measure.Machine(torch.device("cpu"), 0)
    for _ in measure.measured(representation, divide(digits, 0.1), request, machine, Outputs()):
        assert [part.training for part in backbone.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


class Constant(nn.Module):
    """A collapsed network."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.ones(6))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.vector.expand(len(images), 6)


def test_a_collapsed_backbone_scores_at_chance(make_run: MakeRun, preprocess: Preprocess) -> None:
    run = make_run(backbone=Backbone(Constant(), 8, channels=1, preprocess=preprocess))
    for result in evaluate(run.path, net=Constant(), labels="5,all", device="cpu"):
        assert result.value < (0.65 if result.metric == "top5" else 0.2)


def test_broken_weights_are_told_and_nothing_is_recorded(make_run: MakeRun, preprocess: Preprocess) -> None:
    net = Constant()
    run = make_run(backbone=Backbone(net, 8, channels=1, preprocess=preprocess))
    backbone = load_backbone(run.path, net)
    with torch.no_grad():
        net.vector[2] = torch.nan
    save_bundle(run.model, backbone, {})
    with pytest.raises(UserError, match="not finite"):
        evaluate(run.path, net=Constant(), device="cpu")
    assert not run.results_file.exists()


def test_a_bundle_needs_data_and_writes_where_told(
    make_run: MakeRun, make_net: MakeNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_run().model
    with pytest.raises(UserError, match="--data"):
        evaluate(bundle, net=make_net(), device="cpu")
    with_pixels = evaluate(
        bundle, net=make_net(), data="digits", protocol="knn", baselines=True, device="cpu"
    )
    assert [r.features for r in with_pixels if r.metric == "top1"] == ["byol", "pixels"]
    assert capsys.readouterr().err.startswith("no random-init among the baselines")
    out = tmp_path / "numbers" / "mine.json"
    results = evaluate(bundle, net=make_net(), data="digits", protocol="knn", device="cpu", out=out)
    assert json.loads(out.read_text()) == [result.to_dict() for result in results]
    assert (results[0].features, results[0].seed, results[0].epoch) == ("byol", 3, 7)
    assert sorted(file.name for file in bundle.iterdir()) == ["config.json", "model.safetensors"]


def test_without_a_test_split_the_runs_own_holdout_is_scored(
    make_run: MakeRun, make_net: MakeNet, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "open_source", lambda *a, **k: Source("digits", digits.train))
    results = evaluate(make_run(holdout=0.2).path, net=make_net(), device="cpu")
    assert {result.split for result in results} == {"holdout"}
    assert round(results[0].value * 259, 6) % 1 == 0  # 20 % of 1297


def test_errors_leave_nothing_behind(make_run: MakeRun, make_net: MakeNet, tmp_path: Path) -> None:
    run = make_run()
    run.initial_weights.unlink()
    file = run.model / "model.safetensors"
    three = make_run(
        "three",
        data=None,
        backbone=Backbone(make_net(1, 3), 8, preprocess=Preprocess(8, (0.5,) * 3, (0.5,) * 3)),
    )
    unlabelled = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    two_channels = torch.zeros(20, 2, 8, 8, dtype=torch.uint8)
    cases: list[tuple[Path, dict[str, object], str]] = [
        (run.path, {"protocol": "kn"}, "Did you mean 'knn'"),
        (run.path, {"baselines": True}, "step 0"),
        (run.path, {"data": unlabelled}, "has no labels"),
        (run.path, {"data": two_channels}, "channels"),
        (run.path, {"device": "nonsense"}, "device 'nonsense'"),
        (run.path, {"labels": "500"}, "fewer than the 500"),
        (three.path, {"net": make_net(1, 3)}, "--data"),
        (file, {"data": "digits", "net": None}, "--backbone"),
        (file, {"data": None}, "--data"),
        (run.path, {"stem": "small"}, "--stem is for a plain weights file"),
        (tmp_path / "absent", {"data": "digits"}, "no such folder"),
    ]
    for path, settings, message in cases:
        with pytest.raises(UserError, match=message):
            evaluate(path, **{"net": make_net(), "device": "cpu", **settings})  # type: ignore[arg-type]
    assert not run.results_file.exists()


def test_the_runs_own_data_are_opened_and_nothing_is_skipped(
    make_run: MakeRun, make_net: MakeNet, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[object, ...]] = []

    def record(spec: object, **settings: object) -> Source:
        opened.append((spec, *settings.values()))
        return digits

    monkeypatch.setattr(target, "open_source", record)
    run = make_run(on_error="skip", data_dir="elsewhere")
    evaluate(run.path, net=make_net(), protocol="knn", device="cpu")
    evaluate(run.path, net=make_net(), protocol="knn", device="cpu", data="emnist/digits", data_dir="here")
    assert opened == [("digits", 1, "elsewhere", "stop"), ("emnist/digits", 1, "here", "stop")]
