"""Evaluation of a plain state dict: the same numbers as of a bundle, and of these weights only."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import byol
from byol.augment.evaluation import Preprocess, preprocess_for
from byol.bundle import save_bundle
from byol.cli import main
from byol.config import EvaluateConfig
from byol.core.backbone import Backbone
from byol.core.named_backbone import build_backbone
from byol.data.source import Source
from byol.errors import UserError
from byol.evaluation import opening
from byol.evaluation.embedding import embed
from byol.evaluation.opening import open_with_data
from byol.evaluation.run import evaluate

DIGITS: dict[str, Any] = {"backbone": "resnet8_16", "data": "digits", "device": "cpu"}


def small_backbone(seed: int) -> Backbone:
    """A network whose running statistics are its own."""
    torch.manual_seed(seed)
    backbone = build_backbone("resnet8_16", 8, channels=1)
    backbone.train()
    with torch.no_grad():
        for _ in range(3):
            backbone(torch.randn(64, 1, 8, 8))
    backbone.preprocess = preprocess_for("glyph", 8, 1)
    return backbone.eval()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(small_backbone(1).net.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def expected_vectors(images: Any, seed: int = 1) -> Tensor:
    """Pass images one by one through the network that the weights are of."""
    backbone = small_backbone(seed)
    preprocess = backbone.preprocess
    assert preprocess is not None
    with torch.no_grad():
        return torch.cat([backbone(preprocess(images[index])[None]) for index in range(len(images))])


def vectors_of(file: Path, out: Path) -> np.ndarray[Any, Any]:
    return np.load(embed(file, split="test", out=out, **DIGITS))


def test_the_numbers_are_those_of_the_bundle(weights: Path, tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", small_backbone(1), origin={})
    by_bundle = evaluate(tmp_path / "bundle", data="digits", labels="5,all", device="cpu")
    by_file = evaluate(weights, labels="5,all", out=tmp_path / "numbers.json", **DIGITS)
    told = {"weights": str(weights), "backbone": "resnet8_16"}
    assert [replace(r, seconds=0) for r in by_file] == [
        replace(r, seconds=0, settings={**told, **r.settings}) for r in by_bundle
    ]
    assert {(r.features, r.seed, r.epoch) for r in by_file} == {("unknown", None, None)}
    assert json.loads((tmp_path / "numbers.json").read_text()) == [r.to_dict() for r in by_file]
    whole = [r.value * 500 for r in by_file if r.metric != "mean_per_class"]
    assert all(round(value, 6) % 1 == 0 for value in whole)  # the whole test split


def test_data_are_opened_as_asked_for(weights: Path, digits: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, ...]] = []

    def record(spec: object, **settings: object) -> Source:
        opened.append((spec, settings))
        return digits

    monkeypatch.setattr(opening, "open_source", record)
    evaluate(weights, protocol="knn", out=weights.with_name("a.json"), **DIGITS)
    given = {"data": "emnist/digits", "data_dir": "here", "channels": 1}
    evaluate(weights, protocol="knn", out=weights.with_name("b.json"), **DIGITS | given)
    assert opened == [
        ("digits", {"channels": None, "data_dir": "./datasets", "on_error": "stop"}),
        ("emnist/digits", {"channels": 1, "data_dir": "here", "on_error": "stop"}),
    ]


def test_vectors_come_from_these_weights_in_eval_mode(weights: Path, digits: Source, tmp_path: Path) -> None:
    """Spijkervet/BYOL's used batch statistics, did not load the weights at first, and kept old features."""
    found = vectors_of(weights, tmp_path / "a.npy")
    expected = expected_vectors(digits.test)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)  # 500: batches of 256 and 244
    torch.manual_seed(1)
    untrained = build_backbone("resnet8_16", 8, channels=1)
    torch.save(untrained.net.state_dict(), tmp_path / "untrained.pt")
    assert np.abs(found - vectors_of(tmp_path / "untrained.pt", tmp_path / "b.npy")).max() > 0.01
    # Other weights under the same name.
    torch.save(small_backbone(2).net.state_dict(), weights)
    again = vectors_of(weights, tmp_path / "c.npy")
    np.testing.assert_allclose(again, expected_vectors(digits.test, 2).numpy(), rtol=1e-4, atol=1e-5)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npy", ".npy", ".npy", ".pt", ".pth"]


def test_one_command_makes_the_two_rows(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(weights), "--backbone", "resnet8_16", "--data", "digits", "--device", "cpu"]
    assert main([*words, "--protocol", "logistic", "--baselines"]) == 0
    captured = capsys.readouterr()
    rows = [line.split()[:2] for line in captured.out.splitlines() if "logistic" in line]
    assert rows == [["logistic", "unknown"], ["logistic", "pixels"]]
    assert captured.err == "no random-init among the baselines: only a run has the weights of step 0\n"


def test_the_classifier_is_left_out_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = build_backbone("resnet18", 32, channels=1).net
    state = {**net.state_dict(), "fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "x.safetensors")
    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    embed(tmp_path / "x.safetensors", data=images, backbone="resnet18", out=tmp_path / "v.npy", device="cpu")
    assert capsys.readouterr().err == (
        f"left out the classifier in {tmp_path / 'x.safetensors'}: fc.bias, fc.weight\n"
    )


def test_a_network_of_one_s_own(tmp_path: Path, make_net: Callable[..., nn.Module]) -> None:
    torch.save({"model": make_net(1).state_dict()}, tmp_path / "own.pt")
    results = evaluate(tmp_path / "own.pt", net=make_net(0), data="digits", protocol="knn", device="cpu")
    assert results[0].value > 0.9
    assert results[0].settings["backbone"] == "Sequential"


def opened_preprocess(file: Path, data: Any, **settings: Any) -> Preprocess:
    config = EvaluateConfig(target=str(file), **{"backbone": "resnet8_16", **settings})
    return open_with_data(config, data, None)[0].preprocess


def test_size_channels_and_preset_are_those_of_pretraining(
    weights: Path, tiny: dict[str, Any], photographs: Path, tmp_path: Path
) -> None:
    run = byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "epochs": "1st"})
    assert opened_preprocess(weights, "digits") == run.backbone().preprocess
    torch.save(build_backbone("resnet8_16", 8).net.state_dict(), tmp_path / "rgb.pt")
    folder = f"folder:{photographs}"
    assert opened_preprocess(tmp_path / "rgb.pt", folder) == preprocess_for("imagenet", 224, 3)
    assert opened_preprocess(tmp_path / "rgb.pt", folder, image_size=32) == preprocess_for("small", 32, 3)
    whole = opened_preprocess(tmp_path / "rgb.pt", folder, image_size=32, preset="official")
    assert (whole.size, whole.crop_fraction) == (32, 224 / 256)
    assert opened_preprocess(tmp_path / "rgb.pt", "digits", channels=3).mean == (0.485, 0.456, 0.406)
    tensor = torch.zeros(30, 1, 12, 12, dtype=torch.uint8)
    assert opened_preprocess(weights, tensor) == preprocess_for("small", 12, 1)


def test_pixels_of_a_training_without_normalisation(weights: Path, digits: Source, tmp_path: Path) -> None:
    """Spijkervet/BYOL's files: their network saw [0,1]."""
    assert digits.test is not None
    found = np.load(embed(weights, split="test", out=tmp_path / "a.npy", normalize="none", **DIGITS))
    backbone = small_backbone(1)
    bytes_ = torch.stack([digits.test[index] for index in range(len(digits.test))])
    with torch.no_grad():
        expected = backbone(bytes_.double().div(255).float())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_refusals(weights: Path) -> None:
    cases = [
        ({"preset": "offical"}, "Did you mean 'official'"),
        ({"stem": "tiny"}, "--stem cannot be 'tiny'"),
        ({"channels": 3}, r"conv1\.weight \(16x1x3x3, the backbone's is 16x3x3x3\)"),
        ({"backbone": "resnet20_16"}, r"missing: .*is it another --backbone"),
    ]
    for settings, message in cases:
        with pytest.raises(UserError, match=message):
            evaluate(weights, **{**DIGITS, **settings})
