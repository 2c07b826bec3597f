"""Pixels are normalised as those that a network was trained on: in views, bundles and evaluation."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

import byol
from byol.config import EvaluateConfig
from byol.errors import UserError
from byol.evaluation.opening import open_with_data
from byol.rundir import RunDirectory
from byol.training.module import Pretraining
from tests.training.test_resume import stopping_at

HALVES = ((0.5,) * 3, (0.5,) * 3)
"""What timm says of the weights that it has for test_vit."""
Extremes = set[tuple[float, float]]


@pytest.fixture
def settings(tiny: dict[str, Any]) -> dict[str, Any]:
    views = {"preset": {"crop": {}}, "num_workers": 1, "batch_size": 8, "image_size": 32, "epochs": "2st"}
    return {**tiny, **views, "backbone": "test_vit", "knn_every": "0"}


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """What timm is made to believe that it downloads."""
    state: dict[str, torch.Tensor] = timm.create_model("test_vit", img_size=32).state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state))
    return state


@pytest.fixture
def extremes(monkeypatch: pytest.MonkeyPatch) -> Extremes:
    """Collect the least and the largest value of each step's views: crops of black and of white pictures."""
    seen: Extremes = set()
    step = Pretraining.training_step

    def watched(self: Pretraining, batch: Any, index: int) -> torch.Tensor:
        seen.update((float(view.image.min()), float(view.image.max())) for view in self.make_views(batch))
        return step(self, batch, index)

    monkeypatch.setattr(Pretraining, "training_step", watched)
    return seen


def black_and_white(folder: Path, streamed: bool) -> Any:
    """Return 24 pictures, half of them black and the others white; of several sizes they are streamed."""
    for index in range(24):
        side = 40 + index if streamed else 32
        Image.new("RGB", (side, side), ("black", "white")[index % 2]).save(folder / f"{index}.png")
    return f"folder:{folder}"


@pytest.mark.parametrize("streamed", [False, True])
def test_timm_s_weights(
    streamed: bool, settings: dict[str, Any], published: Any, extremes: Extremes, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    data, out = black_and_white(tmp_path / "data", streamed), str(tmp_path / "run")
    with stopping_at(1):
        byol.pretrain(data, out=out, backbone_weights="timm", **settings)
    run = byol.pretrain(resume=out)
    assert RunDirectory(run.path).config()["normalize"] == "timm"
    preprocess = run.backbone().preprocess
    assert preprocess is not None and (preprocess.mean, preprocess.std) == HALVES
    assert extremes == {(-1.0, 1.0)}


def test_a_file_of_theirs(
    settings: dict[str, Any],
    published: dict[str, torch.Tensor],
    extremes: Extremes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It may be anyone's: it gets ImageNet's numbers, and a line says what timm's would want."""
    (tmp_path / "data").mkdir()
    data, file = black_and_white(tmp_path / "data", streamed=False), str(tmp_path / "vit.pt")
    torch.save(published, file)
    settings |= {"backbone_weights": file, "epochs": "1st"}
    line = (
        f"pixels are normalised as of ImageNet: if the weights in {file} are timm's, give --normalize timm\n"
    )
    byol.pretrain(data, out=str(tmp_path / "plain"), **settings)
    assert line in capsys.readouterr().err
    for choice, expected in (("timm", {(-1.0, 1.0)}), ("none", {(0.0, 1.0)})):
        extremes.clear()
        byol.pretrain(data, out=str(tmp_path / choice), normalize=choice, **settings)
        assert extremes == expected
        assert line not in capsys.readouterr().err
    for normalize, is_told in ((None, True), ("timm", False)):
        config = EvaluateConfig(target=file, backbone="test_vit", image_size=32, normalize=normalize)
        target, _ = open_with_data(config, data, None)
        assert ((target.preprocess.mean, target.preprocess.std) == HALVES) is not is_told
        assert (line in capsys.readouterr().err) is is_told


def test_a_network_that_is_none_of_timm_s(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--normalize timm is for timm's networks, and CifarResNet is none"):
        byol.pretrain(
            "digits",
            out=str(tmp_path / "run"),
            **{**settings, "backbone": "resnet8_16", "image_size": 8, "normalize": "timm"},
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("streamed", [False, True])
def test_values_of_one_s_own(
    streamed: bool, settings: dict[str, Any], extremes: Extremes, tmp_path: Path
) -> None:
    """As 004's `normalise`: in the views, in the bundle, and in config.yaml, which can be run again."""
    (tmp_path / "data").mkdir()
    data = black_and_white(tmp_path / "data", streamed)
    values = {"mean": [0.5, 0.25, 0.25], "std": [0.5, 0.5, 0.125]}
    run = byol.pretrain(data, out=str(tmp_path / "run"), normalize=values, **settings)
    assert extremes == {(-2.0, 6.0)}
    preprocess = run.backbone().preprocess
    assert preprocess is not None and (preprocess.mean, preprocess.std) == tuple(
        tuple(values[name]) for name in ("mean", "std")
    )
    stored = RunDirectory(run.path).config()
    assert stored["normalize"] == values
    extremes.clear()
    byol.pretrain(**{**stored, "out": str(tmp_path / "again")})
    assert extremes == {(-2.0, 6.0)}


@pytest.mark.parametrize(
    "values",
    [
        {"mean": [0.5] * 3},
        {"mean": [0.5] * 3, "std": [0.5]},
        {"mean": [0.5] * 3, "std": [0.5, 0.0, 0.5]},
        {"mean": [0.5] * 3, "std": 0.5},
        {"mean": [0.5] * 3, "std": [0.5, float("nan"), 0.5]},
        {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 3},
    ],
)
def test_values_that_are_none(values: dict[str, Any], settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = black_and_white(tmp_path / "data", streamed=False)
    with pytest.raises(UserError, match="give mean and std, 3 numbers each, std above 0"):
        byol.pretrain(data, out=str(tmp_path / "run"), normalize=values, **settings)
    assert not (tmp_path / "run").exists()
