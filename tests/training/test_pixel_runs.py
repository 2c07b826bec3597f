"""`byol pretrain --method pixpro` and pixcontrast: resumed, in bf16, compiled, and loaded again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import byol
from byol.errors import UserError
from tests.training.test_pretrain import assert_same_run
from tests.training.test_resume import stopping_at

SETTINGS: dict[str, Any] = {
    "image_size": 16,
    "preset": "small",
    "knn_every": "0",
    "log_every": "1st",
    "logger": "none",
}
METHODS: dict[str, dict[str, Any]] = {
    "pixpro": {"method": "pixpro", "instance_weight": 1},
    "pixcontrast": {"method": "pixcontrast"},
}


@pytest.fixture(params=METHODS)
def settings(request: pytest.FixtureRequest, tiny: dict[str, Any]) -> dict[str, Any]:
    return {**tiny, **SETTINGS, **METHODS[request.param]}


def test_a_resumed_run_is_an_uninterrupted_one(settings: dict[str, Any], tmp_path: Path) -> None:
    byol.pretrain(**settings, out=str(tmp_path / "whole"))
    with stopping_at(4):
        byol.pretrain(**settings, out=str(tmp_path / "stopped"))
    byol.pretrain(resume=tmp_path / "stopped")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_in_bf16_the_losses_are_nearly_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    losses = {
        precision: [
            record["loss"]
            for record in byol.pretrain(
                **settings, precision=precision, out=str(tmp_path / precision)
            ).metrics()
        ]
        for precision in ("fp32", "bf16")
    }
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], abs=0.2)


@pytest.mark.slow
def test_compiled_it_is_the_same_run(
    settings: dict[str, Any],
    make_net: Callable[[], nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A small network's graphs: that code made from them gives the same, test_pixel_step shows."""

    def compile_to_graphs(self: nn.Module, dynamic: bool | None = None) -> None:
        parts.append(self)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="aot_eager")  # type: ignore[assignment]

    parts: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", compile_to_graphs)
    own = {name: value for name, value in settings.items() if name != "backbone"}
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (100, 3, 16, 16), dtype=torch.uint8, generator=generator)
    losses = []
    for compiled in ("off", "on"):
        own |= {"compile": compiled, "out": str(tmp_path / compiled)}
        run = byol.pretrain(images, make_net(), hidden_layer=-2, **own)
        losses.append([record["loss"] for record in run.metrics()])
    assert len(parts) == 3, "online network, predictor and target"
    assert losses[0][:2] == pytest.approx(losses[1][:2], rel=1e-3)


def test_a_bundle_keeps_the_layer_of_the_map(settings: dict[str, Any], tmp_path: Path) -> None:
    images = torch.rand(2, 1, 16, 16)
    last = byol.pretrain(**settings, out=str(tmp_path / "last")).backbone()
    chosen = byol.pretrain(**settings, feature_layer="layer2", out=str(tmp_path / "chosen")).backbone()
    assert last.feature_map(images).shape == (2, 64, 4, 4)
    assert chosen.feature_map(images).shape == (2, 32, 8, 8)
    assert chosen(images).shape == (2, 64)


def test_a_layer_without_a_map_is_refused_before_anything_is_written(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="choose a layer before the pooling"):
        byol.pretrain(
            **{**settings, "backbone": "resnet18", "feature_layer": "global_pool", "image_size": 32},
            out=str(tmp_path / "run"),
        )
    assert not (tmp_path / "run").exists()
