"""What is said before a run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import byol
from byol.config import PretrainConfig
from byol.core.backbone import Backbone
from byol.data.images import TensorImages
from byol.training import advice as module
from byol.training.advice import advice
from byol.training.preparation import PreparedData, prepare_data
from byol.training.resolution import resolve

IMAGES = TensorImages(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
CONFIG = PretrainConfig(compile="off")
DATA = PreparedData("images", IMAGES, IMAGES, IMAGES, IMAGES.images, 3, ())


def net(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *more)


def test_nothing_of_note() -> None:
    assert not list(advice(CONFIG, DATA, Backbone(net(), 8), 50, own=True))


def test_a_classifiers_scores_are_no_representation() -> None:
    (line,) = advice(CONFIG, DATA, Backbone(net(nn.Linear(6, 10)), 8), 50, own=True)
    assert "layer '3'" in line and "10 numbers" in line and "hidden_layer" in line
    assert not list(advice(CONFIG, DATA, Backbone(net(nn.Linear(6, 10)), 8, hidden_layer=-2), 50, own=True))
    assert not list(advice(CONFIG, DATA, Backbone(net(nn.Linear(6, 10)), 8), 50, own=False)), (
        "one by name has none"
    )
    assert not list(advice(CONFIG, DATA, Backbone(net(nn.Linear(6, 10), nn.ReLU()), 8), 50, own=True))


@pytest.mark.parametrize(
    ("settings", "steps", "said"),
    [
        ({"optimizer": "lars"}, 1900, True),
        ({"optimizer": "lars"}, 20, False),
        ({"optimizer": "lars"}, 50_000, False),
        ({"optimizer": "lars", "batch_size": 4096}, 1900, False),
        ({"optimizer": "adamw"}, 1900, False),
    ],
)
def test_lars_wants_long_runs_or_large_batches(settings: dict[str, Any], steps: int, said: bool) -> None:
    config = PretrainConfig(compile="off", **settings)
    lines = list(advice(config, DATA, Backbone(net(), 8), steps, own=True))
    assert len(lines) == said and all("--optimizer adamw" in line for line in lines)


@pytest.mark.parametrize(
    ("side", "there", "said"),
    [
        (32, False, "small ones learn in minutes: --backbone resnet8_32 (see --recipe cifar10-cpu)"),
        (224, False, "many times as fast: --recipe photographs-cpu"),
        (224, True, None),
    ],
)
def test_a_large_network_on_a_cpu(
    side: int, there: bool, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", 100)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    config = PretrainConfig(compile="off", image_size=side)
    lines = list(advice(config, DATA, Backbone(net(), 8), 50, own=False))
    assert len(lines) == (said is not None) and all(line.endswith(str(said)) for line in lines)


LINE = (
    "the images' shorter sides are about 48 pixels, and views of 224 enlarge them: "
    "--image-size 64 would be nearer"
)


def enlarged(data: Any, **settings: Any) -> list[str]:
    config = PretrainConfig(compile="off", **settings)
    prepared = prepare_data(data, config)
    return list(advice(resolve(config, prepared), prepared, Backbone(net(), 8), 50, own=True))


def test_images_of_several_sizes_that_the_default_enlarges(tmp_path: Path) -> None:
    """Most are small; the first is not."""
    for number in range(100):
        side = 300 if number % 17 == 0 else 48
        Image.new("RGB", (side, side + number % 3)).save(tmp_path / f"{number:02}.png")
    data = f"folder:{tmp_path}"
    assert enlarged(data) == [LINE]
    assert not enlarged(data, view_size=64) and not enlarged(data, image_size=96), "the user's choice"


@pytest.mark.parametrize(
    ("height", "width", "said"),
    [
        (48, 64, [LINE]),
        (64, 64, []),
        (113, 120, []),
        (112, 120, [LINE.replace("48", "112").replace("64", "128")]),
    ],
)
def test_images_of_one_size_that_the_default_enlarges(height: int, width: int, said: list[str]) -> None:
    assert enlarged(torch.zeros(40, 3, height, width, dtype=torch.uint8)) == said


def test_what_is_in_a_folder_and_not_read(
    photographs: Path, tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photographs"
    folder.symlink_to(photographs)
    beside = tmp_path / "all"
    beside.mkdir()
    (beside / "read").symlink_to(photographs)
    for name in ("1.HEIC", "2.heic", "3.gif", "notes.txt"):
        (beside / name).touch()
    settings = {**tiny, "image_size": 32, "batch_size": 8, "epochs": "1st"}
    byol.pretrain(f"folder:{beside}", out=str(tmp_path / "run"), **settings)
    said = capsys.readouterr().err
    assert "left alone 3 of kinds that are not read (.gif .heic): convert them to jpg or png" in said
    byol.pretrain(f"folder:{folder}", out=str(tmp_path / "plain"), **settings)
    assert "left alone" not in capsys.readouterr().err
