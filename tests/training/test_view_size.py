"""Views of another side than the images that the backbone is for (arXiv 1906.06423)."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import byol
from byol.training import callbacks
from byol.training.callbacks import Monitor
from byol.training.errors import Interrupted
from byol.training.module import Pretraining
from tests.training.test_pretrain import assert_same_run


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sides of all images that backbones get in training."""
    seen: list[int] = []
    original = Pretraining.training_step

    def training_step(self: Pretraining, batch: Any, batch_index: int) -> Tensor:
        hook = self.learner.backbone.net.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].shape[-1])
        )
        try:
            return original(self, batch, batch_index)
        finally:
            hook.remove()

    monkeypatch.setattr(Pretraining, "training_step", training_step)
    return seen


def settings_for(kind: str, photographs: Path) -> dict[str, Any]:
    """Return data of 32 pixels that stay in memory, or files that are streamed."""
    if kind == "streamed":
        return {"data": f"folder:{photographs}", "image_size": 32, "batch_size": 8, "num_workers": 1}
    images = torch.randint(0, 256, (80, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    return {"data": images.byte(), "batch_size": 16}


@pytest.mark.parametrize("side", [24, 40])
@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_views_have_it_and_the_backbone_does_not(
    kind: str,
    side: int,
    tiny: dict[str, Any],
    photographs: Path,
    sides: list[int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {**tiny, **settings_for(kind, photographs)}
    run = byol.pretrain(out=str(tmp_path / "run"), view_size=side, **settings)
    assert set(sides) == {side} and len(sides) == 6 * 2
    assert f"resnet8_16 at 32 px (views: {side} px), adamw" in capsys.readouterr().err
    backbone = byol.load_backbone(run.path)
    assert backbone.image_size == 32
    assert backbone.preprocess(torch.zeros(3, 50, 50, dtype=torch.uint8)).shape == (3, 32, 32)


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_the_image_size_itself_changes_nothing(
    kind: str, tiny: dict[str, Any], photographs: Path, tmp_path: Path
) -> None:
    settings = {**tiny, **settings_for(kind, photographs)}
    without = byol.pretrain(out=str(tmp_path / "without"), **settings)
    given = byol.pretrain(out=str(tmp_path / "given"), view_size=32, **settings)
    one, other = (run.path / "model" / "model.safetensors" for run in (without, given))
    assert one.read_bytes() == other.read_bytes()


def test_a_run_goes_on_with_it(
    tiny: dict[str, Any], sides: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = byol.pretrain("digits", out=str(tmp_path / "whole"), view_size=6, **tiny)
    original = Monitor.__call__

    def interrupted(self: Monitor, module: Pretraining) -> None:
        original(self, module)
        if module.step == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "__call__", interrupted)
        with pytest.raises(Interrupted):
            byol.pretrain("digits", out=str(tmp_path / "parts"), view_size=6, **tiny)
    assert_same_run(whole.path, byol.pretrain(resume=tmp_path / "parts").path)
    assert set(sides) == {6} and len(sides) == 2 * 6 * 2


@pytest.mark.parametrize("method", ["pixpro", "pixcontrast", "simsiam"])
def test_other_methods_have_it(
    method: str, tiny: dict[str, Any], photographs: Path, sides: list[int], tmp_path: Path
) -> None:
    settings = {**tiny, **settings_for("resident", photographs), "optimizer": "sgd", "view_size": 24}
    byol.pretrain(method=method, out=str(tmp_path / "run"), **settings)
    assert set(sides) == {24}


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), "the backbone cannot take 1 x 6 x 6 images "),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), "the representation's width would be 64, not 144"),
    ],
    ids=["refuses", "gives another width"],
)
def test_a_network_of_one_size_is_refused_before_anything_is_written(
    net: nn.Module, message: str, tiny: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**tiny, "backbone": net, "out": str(tmp_path / "run")}
    with pytest.raises(byol.UserError, match=rf"views of 6 pixels \(--view-size\).*: {message}"):
        byol.pretrain("digits", view_size=6, **settings)
    with pytest.raises(byol.UserError, match="view_size is 0, it must be at least 1"):
        byol.pretrain("digits", view_size=0, **settings)
    assert not (tmp_path / "run").exists()


def test_places_are_not_compared_where_there_is_one(
    tiny: dict[str, Any], photographs: Path, tmp_path: Path
) -> None:
    settings = {**tiny, **settings_for("resident", photographs), "method": "pixpro", "view_size": 4}
    with pytest.raises(byol.UserError, match="the feature map would have a single place"):
        byol.pretrain(out=str(tmp_path / "run"), **settings)


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_warming_up_has_views_of_that_size(
    kind: str,
    tiny: dict[str, Any],
    photographs: Path,
    sides: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callbacks, "needs_warm_up", lambda module: True)
    byol.pretrain(out=str(tmp_path / "run"), view_size=24, **{**tiny, **settings_for(kind, photographs)})
    assert set(sides) == {24} and len(sides) == 7 * 2
