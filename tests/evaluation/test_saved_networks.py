"""Fine-tuned networks that are kept: they give what was reported, and what does not suit them is refused."""

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn
from torch.utils.data import Dataset

import byol
from byol.augment.evaluation import preprocess_for
from byol.bundle import save_bundle
from byol.cli import main
from byol.core.named_backbone import build_backbone
from byol.data.images import TensorImages
from byol.data.source import Source
from byol.errors import UserError
from byol.evaluation.results import Result
from byol.evaluation.run import evaluate
from byol.evaluation.supervised import Supervision
from byol.rundir import RunDirectory

MakeRun = Callable[..., RunDirectory]
MakeNet = Callable[..., nn.Module]
TUNING: dict[str, Any] = {
    **{"protocol": "finetune", "finetune_rates": "1", "finetune_epochs": "2", "device": "cpu"},
    "save_networks": True,
}


class Labelled(Dataset[tuple[Tensor, int]]):
    """Images and labels of a user's, with or without names for them."""

    def __init__(self, images: Tensor, labels: Tensor, classes: list[str] | None = None) -> None:
        self.images, self.labels = images, labels
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tensors(digits: Source) -> tuple[Tensor, Tensor]:
    assert isinstance(digits.test, TensorImages) and digits.test.labels is not None
    return digits.test.images, digits.test.labels


@pytest.fixture
def network(make_run: MakeRun, make_net: MakeNet) -> tuple[Path, list[Result]]:
    """A network of one's own, fine-tuned with all labels, and what was reported of it."""
    run = make_run()
    results = evaluate(run.path, net=make_net(), **TUNING)
    return run.networks / "byol-all", results


def test_a_named_network_gives_the_very_predictions_and_the_same_record(
    tmp_path: Path, digits: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet8_16", 8, channels=1)
    backbone.preprocess = preprocess_for("glyph", 8, 1)
    save_bundle(tmp_path / "bundle", backbone, {"method": "byol", "seed": 3, "epoch": 7.0})
    fitted = evaluate(tmp_path / "bundle", data="digits", out=tmp_path / "mine.json", **TUNING)
    folder = tmp_path / "mine-networks" / "byol-all"
    assert names_in(folder) == [
        *("classifier.json", "classifier.safetensors", "config.json", "model.safetensors")
    ]
    assert names_in(folder.parent) == ["byol-all"]

    words = ["evaluate", str(folder), "--data", "digits", "--device", "cpu", "--report"]
    assert main([*words, "--out", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    origin = {"network": str(folder), "learned_from": "digits"}
    expected = [result.to_dict() for result in fitted]
    for record in expected:
        record["settings"] = {**origin, **record["settings"]}
    assert [{**record, "seconds": 0} for record in again] == [{**r, "seconds": 0} for r in expected]
    assert "finetune" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "again.json"), "--protocol", "knn,logistic"]) == 2
    error = capsys.readouterr().err
    assert "--protocol does not go with" in error and error.count("\n") == 1

    images, labels = tensors(digits)
    assert fitted[0].predictions is not None
    report = json.loads((tmp_path / "again-reports" / "finetune.json").read_text())
    assert report["confusion"] == confusion_matrix(labels, fitted[0].predictions).tolist()
    assert (tmp_path / "again-reports" / "finetune.png").is_file()

    classifier = byol.load_classifier(folder)
    assert not any(module.training for module in classifier.modules())
    assert classifier.classes == tuple("0123456789") and classifier.preprocess == backbone.preprocess
    with torch.no_grad():
        logits = torch.cat([classifier(classifier.preprocess(part)) for part in images.split(256)])
    assert logits.shape == (500, 10)
    assert torch.equal(logits.argmax(dim=1), fitted[0].predictions)
    assert float((logits.argmax(dim=1) == labels).double().mean()) == fitted[0].value > 0.5
    # The backbone in it is the fine-tuned one, not that which it started from.
    tuned = byol.load_backbone(folder)
    assert torch.equal(tuned.net.state_dict()["conv1.weight"], classifier.backbone.net.conv1.weight)
    assert not torch.equal(tuned.net.state_dict()["conv1.weight"], backbone.net.conv1.weight)


def test_logits_come_back_bit_for_bit_in_a_network_of_one_s_own(
    make_run: MakeRun, make_net: MakeNet, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[Tensor] = []
    scores = Supervision.scores

    def watched(*arguments: Any) -> Tensor:
        scored.append(scores(*arguments))
        return scored[-1]

    monkeypatch.setattr(Supervision, "scores", watched)
    run = make_run()
    results = evaluate(run.path, net=make_net(), freeze="0", **TUNING)
    folder, net = run.networks / "byol-all", make_net(5)
    with pytest.raises(UserError, match="a network of your own: pass an untrained copy of it as `net`"):
        byol.load_classifier(folder)
    classifier = byol.load_classifier(folder, net)
    assert classifier.backbone.net is net
    images, _ = tensors(digits)
    with torch.no_grad():
        logits = torch.cat([classifier(classifier.preprocess(part)) for part in images.split(256)])
    assert torch.equal(logits, scored[-1]) and len(logits) == 500
    again = evaluate(folder, net=make_net(6), data="digits", device="cpu")
    assert [r.value for r in again] == [r.value for r in results]
    assert again[0].predictions is not None and results[0].predictions is not None
    assert torch.equal(again[0].predictions, results[0].predictions)


def test_every_fit_has_its_folder_and_none_is_replaced(
    make_run: MakeRun, make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    quick = {**TUNING, "finetune_epochs": "1"}
    results = evaluate(run.path, net=make_net(), labels="1%,2", draws=2, baselines=True, **quick)
    amounts = ("1%-draw0", "1%-draw1", "2-draw0", "2-draw1")
    assert names_in(run.networks) == [f"{f}-{a}" for f in ("byol", "random-init") for a in amounts]
    drawn = [r for r in results if (r.features, r.labels, r.draw) == ("random-init", "1%", 1)]
    folder = run.networks / "random-init-1%-draw1"
    again = evaluate(folder, net=make_net(), data="digits", device="cpu")
    identity = ("protocol", "features", "labels", "draw", "metric", "value", "split", "seed", "epoch")
    for mine, theirs in zip(again, drawn, strict=True):
        assert [getattr(mine, name) for name in identity] == [getattr(theirs, name) for name in identity]
    written = len(run.results())
    monkeypatch.setattr(Supervision, "fitted", None)  # told before anything is trained
    with pytest.raises(UserError, match="byol-2-draw0' exists: move it elsewhere or remove it"):
        evaluate(run.path, net=make_net(), labels="all,2", draws=1, **quick)
    assert len(run.results()) == written and "byol-all" not in names_in(run.networks)


def test_other_images_are_all_scored_and_own_ones_only_where_they_were_held_out(
    make_run: MakeRun, make_net: MakeNet, digits: Source
) -> None:
    images, labels = tensors(digits)
    own = Labelled(images[:300], labels[:300])
    run = make_run(holdout=0.2)
    fitted = evaluate(run.path, net=make_net(), data=own, **TUNING)
    folder = run.networks / "byol-all"
    settings: dict[str, Any] = {"net": make_net(), "device": "cpu"}
    again = evaluate(folder, data=Labelled(images[:300], labels[:300]), **settings)
    assert {r.split for r in fitted} == {r.split for r in again} == {"holdout"}
    assert [r.value for r in again] == [r.value for r in fitted]
    # As many others, whose labels and keys are alike.
    changed = images[:300].clone()
    changed[:] = changed.flip(0)
    for other, count in ((Labelled(changed, labels[:300]), 300), (Labelled(images[300:], labels[300:]), 200)):
        with pytest.warns(UserWarning, match="learned from Labelled, and these are not exactly the images"):
            (first, *_) = evaluate(folder, data=other, **settings)
        assert first.split == "all" and first.predictions is not None and len(first.predictions) == count


def test_a_folder_that_has_changed_is_not_scored_on_what_was_learned(
    make_run: MakeRun, make_net: MakeNet, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = tensors(digits)
    folder = tmp_path / "pictures"
    for number, (image, label) in enumerate(zip(images[:101], labels, strict=False)):
        file = folder / str(int(label)) / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(file)
    file.rename(tmp_path / "added.png")
    run = make_run(holdout=0.2)
    monkeypatch.chdir(folder)
    fitted = evaluate(run.path, net=make_net(), data="folder:.", **TUNING)
    network = run.networks / "byol-all"
    settings: dict[str, Any] = {"net": make_net(), "device": "cpu"}
    again = evaluate(network, data=f"folder:{folder}", **settings)
    assert [(r.value, r.split) for r in again] == [(r.value, "holdout") for r in fitted]
    shutil.copy(tmp_path / "added.png", file)
    monkeypatch.chdir(tmp_path)
    for name in (f"folder:{folder}", "folder:pictures", "pictures"):
        with pytest.raises(UserError, match="put the images to score under test/") as caught:
            evaluate(network, data=name, **settings)
        assert "\n" not in str(caught.value)
    shutil.copytree(folder, tmp_path / "others")
    assert evaluate(network, data="others", **settings)[0].split == "all"
    (tmp_path / "divided").mkdir()
    for part in ("train", "test"):
        shutil.copytree(tmp_path / "others", tmp_path / "divided" / part)
    folder.rename(tmp_path / "before")
    (tmp_path / "divided").rename(folder)
    assert evaluate(network, data="pictures", **settings)[0].split == "test"


def test_the_last_of_numbered_classes_may_be_missing(
    network: tuple[Path, list[Result]], make_net: MakeNet, digits: Source
) -> None:
    folder, results = network
    images, labels = tensors(digits)
    known = labels < 8
    scored = evaluate(folder, net=make_net(), data=Labelled(images[known], labels[known]), device="cpu")
    assert results[0].predictions is not None
    assert scored[0].value == float((results[0].predictions == labels)[known].double().mean())


def test_a_report_of_few_labels_and_a_plot(make_run: MakeRun, make_net: MakeNet, tmp_path: Path) -> None:
    run = make_run()
    evaluate(run.path, net=make_net(), labels="5", draws=1, **TUNING)
    out = {"out": tmp_path / "n.json", "report": True, "plot": True}
    evaluate(run.networks / "byol-5-draw0", net=make_net(), data="digits", device="cpu", **out)
    assert names_in(tmp_path / "n-reports") == ["finetune.json", "finetune.png", "labels.png"]


def test_what_does_not_suit_a_saved_network_is_refused(
    network: tuple[Path, list[Result]], make_net: MakeNet, digits: Source, tmp_path: Path
) -> None:
    folder, _ = network
    images, labels = tensors(digits)
    words = [f"digit {number}" for number in range(10)]
    swapped = ["1", "0", *map(str, range(2, 10))]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"data": Labelled(images, labels, words)}, "only the data has digit 0, .*only the network has 0, 1"),
        (
            {"data": Labelled(images, labels, swapped)},
            "of the network: they stand in another order",
        ),
        ({"data": Labelled(images.repeat(1, 2, 1, 1), labels)}, "images of 2 channels cannot become 1"),
        ({"data": Labelled(images, labels + 1)}, "of the network: only the data has 10"),
        ({"data": images}, "no labels"),
        ({"data": None}, "name them with --data"),
        ({"protocol": "knn"}, "--protocol does not go with .*scored as it is"),
        ({"protocol": "knn,logistic"}, "--protocol does not go with"),  # the default, which is none here
        ({"labels": "5"}, "--labels does not go with"),
        ({"labels": "all"}, "--labels does not go with"),
        ({"draws": 5}, "--draws does not go with"),
        ({"baselines": True}, "--baselines does not go with"),
        ({"save_networks": True}, "--save-networks does not go with"),
        ({"backbone": "resnet18"}, "--backbone does not go with"),
        ({"report": True}, "--report, --plot and --save-networks need a run directory, or --out FILE"),
        ({"net": None}, "a network of your own"),
    ]
    for settings, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            evaluate(folder, **{"net": make_net(), "device": "cpu", "data": "digits", **settings})
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.json"))


def test_folders_without_a_classifier_are_told(network: tuple[Path, list[Result]], make_net: MakeNet) -> None:
    folder, _ = network
    run = folder.parent.parent
    for path, reason in ((run, "it has no classifier.safetensors"), (run / "absent", "no such folder")):
        with pytest.raises(UserError, match=f"is no network with a classifier: {reason}"):
            byol.load_classifier(path)
    description = folder / "classifier.json"
    text = description.read_text()
    for damaged in ("{", "[]", "{}", text.replace("scored_digest", "digest")):
        description.write_text(damaged)
        with pytest.raises(UserError, match="does not describe a classifier of byol") as caught:
            byol.load_classifier(folder, make_net())
        assert "\n" not in str(caught.value)
    description.unlink()
    with pytest.raises(UserError, match="does not describe a classifier"):
        byol.load_classifier(folder, make_net())


def test_networks_that_cannot_be_kept_are_refused_beforehand(make_run: MakeRun, make_net: MakeNet) -> None:
    run = make_run()
    with pytest.raises(UserError, match="--save-networks concerns --protocol finetune only"):
        evaluate(run.path, net=make_net(), protocol="knn", save_networks=True)
    with pytest.raises(UserError, match="need a run directory, or --out FILE"):
        evaluate(run.model, net=make_net(), data="digits", **TUNING)
    assert not run.results_file.exists()


def test_without_the_setting_nothing_is_kept(make_run: MakeRun, make_net: MakeNet) -> None:
    run = make_run()
    evaluate(run.path, net=make_net(), **{**TUNING, "save_networks": False})
    assert not run.networks.exists()


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("save_weights", UserError("cannot save: no space left on device")),
        ("write_atomically", OSError(errno.ENOSPC, "no space left on device")),
    ],
)
def test_a_disk_that_is_full_leaves_no_half_network_but_the_numbers(
    function: str, error: Exception, make_run: MakeRun, make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(f"byol.evaluation.classifier.{function}", full)
    run = make_run()
    with pytest.raises(UserError, match="no space left"):
        evaluate(run.path, net=make_net(), **TUNING)
    assert names_in(run.networks) == []
    assert {record["protocol"] for record in run.results()} == {"finetune"}


def test_rows_are_recorded_when_they_are_known(
    make_run: MakeRun, make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of several fits diverges: the earlier ones are not lost."""
    fitted, fits = Supervision.fitted, []

    def diverging(self: Supervision, *arguments: Any) -> Any:
        fits.append(len(run.results()))
        classifier = fitted(self, *arguments)
        if len(fits) == 3:
            nn.init.constant_(classifier.head.weight, torch.nan)
        return classifier

    monkeypatch.setattr(Supervision, "fitted", diverging)
    run = make_run()
    asked = {**TUNING, "finetune_epochs": "1", "labels": "2,5%,all", "draws": 1}
    with pytest.raises(UserError, match="fine-tuning diverged"):
        evaluate(run.path, net=make_net(), **asked)
    assert fits == [0, 3, 6]  # three metrics each
    assert [(r["labels"], r["draw"]) for r in run.results()] == [(2, 0)] * 3 + [("5%", 0)] * 3
    assert names_in(run.networks) == ["byol-2-draw0", "byol-5%-draw0"]


def test_what_is_known_beforehand_is_told_before_anything_is_measured(
    make_run: MakeRun, make_net: MakeNet
) -> None:
    run = make_run()
    with pytest.raises(UserError, match="fewer than the 500"):
        evaluate(run.path, net=make_net(), labels="1,500", device="cpu")
    run.initial_weights.unlink()
    with pytest.raises(UserError, match="step 0"):
        evaluate(run.path, net=make_net(), baselines=True, device="cpu")
    assert not run.results_file.exists() and not run.splits.exists()


def test_draws_of_labels_of_a_bundle_lie_beside_its_out(
    make_run: MakeRun, make_net: MakeNet, tmp_path: Path
) -> None:
    run = make_run()
    asked: dict[str, Any] = {"net": make_net(), "protocol": "knn", "labels": "2,all", "draws": 2}
    evaluate(run.path, device="cpu", **asked)
    evaluate(run.model, data="digits", device="cpu", out=tmp_path / "numbers" / "mine.json", **asked)
    beside = tmp_path / "numbers" / "mine-splits"
    assert names_in(beside) == ["digits-2-draw0-seed0.json", "digits-2-draw1-seed0.json"]
    for file in beside.iterdir():
        assert file.read_text() == (run.splits / file.name).read_text()
    evaluate(run.model, data="digits", device="cpu", **asked)
    assert names_in(run.model) == ["config.json", "model.safetensors"]


def test_results_that_differ_in_time_alone(network: tuple[Path, list[Result]], make_net: MakeNet) -> None:
    folder, _ = network
    asked: dict[str, Any] = {"data": "digits", "device": "cpu"}
    first, second = (evaluate(folder, net=make_net(seed), **asked) for seed in (1, 2))
    assert [replace(r, seconds=0) for r in first] == [replace(r, seconds=0) for r in second]
