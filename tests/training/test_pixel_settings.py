"""Settings of the methods that compare places: PixPro's published ones, and what they cannot go with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import byol
from byol.augment.presets import PRESETS, Crop
from byol.config import PretrainConfig
from byol.data.dataset_images import DatasetImages
from byol.data.images import TensorImages
from byol.errors import UserError
from byol.rundir import RunDirectory
from byol.training.preparation import PreparedData
from byol.training.resolution import resolve
from tests.training.conftest import Recorded

METHODS = ("pixpro", "pixcontrast")


def data_of(name: str, side: int | None, count: int = 512, labelled: bool = False) -> PreparedData:
    """Return prepared images that are all the same byte; None: images that do not stay in memory."""
    images = torch.zeros(1, 3, side or 8, side or 8, dtype=torch.uint8).expand(count, -1, -1, -1)
    labels = torch.zeros(count, dtype=torch.int64) if labelled else None
    image_set = DatasetImages(Recorded(images), 3) if side is None else TensorImages(images, labels)
    resident = None if side is None else images
    return PreparedData(name, image_set, TensorImages(images[:0]), image_set, resident, 3, ())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [(None, ("lars", 1.0, 1e-5)), ("adamw", ("adamw", 2e-3, 1e-4)), ("sgd", ("sgd", 0.05, 1e-4))],
)
def test_defaults_are_the_published_ones(method: Any, optimizer: Any, expected: tuple[Any, ...]) -> None:
    """Official scripts, for any length; other optimizers as for BYOL."""
    for epochs in ("100", "400", "1000"):
        config = PretrainConfig(method=method, optimizer=optimizer, epochs=epochs)
        found = resolve(config, data_of("somewhere", None))
        assert (found.optimizer, found.base_lr, found.weight_decay) == expected
        assert found.tau == 0.99 and found.instance_weight == 0
        assert found.warmup == f"{5 * 2}st"  # two steps of 256 images an epoch
    short = resolve(PretrainConfig(method=method, epochs="8"), data_of("somewhere", None))
    assert short.warmup == f"{8 * 2 // 4}st"


def test_given_values_stay() -> None:
    given = {"base_lr": 0.3, "weight_decay": 0.0, "tau": 0.5, "instance_weight": 1.0, "preset": "imagenet"}
    found = resolve(PretrainConfig(method="pixpro", **given), data_of("digits", 8))
    assert {name: getattr(found, name) for name in given} == given


def test_other_methods_are_as_before() -> None:
    byol = resolve(PretrainConfig(), data_of("digits", 8))
    assert (byol.preset, byol.base_lr, byol.weight_decay, byol.tau) == ("glyph", 0.45, 1e-6, 0.99)
    assert byol.instance_weight == 0 and byol.warmup == "20st"
    simsiam = resolve(PretrainConfig(method="simsiam"), data_of("somewhere", None))
    assert (simsiam.preset, simsiam.optimizer, simsiam.warmup) == ("simsiam", "sgd", "0st")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "side", "size", "preset"),
    [
        ("digits", 8, None, "small"),
        ("emnist/letters", 28, None, "small"),
        ("digits", 8, 112, "pixpro"),
        ("cifar10", 32, None, "small"),
        ("stl10", 96, None, "small"),
        ("somewhere", None, None, "pixpro"),
        ("somewhere", None, 97, "pixpro"),
    ],
)
def test_views_have_boxes_by_default(method: Any, name: str, side: int, size: int, preset: str) -> None:
    found = resolve(PretrainConfig(method=method, image_size=size), data_of(name, side))
    assert found.preset == preset


def test_preset_pixpro_is_byol_s_table_with_bilinear_crops() -> None:
    for ours, table in zip(PRESETS["pixpro"], PRESETS["imagenet"], strict=True):
        assert ours.crop == Crop((0.08, 1.0), (3 / 4, 4 / 3), "bilinear")
        assert replace(ours, crop=table.crop) == table


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("preset", "which"),
    [("glyph", "preset 'glyph'"), ({"base": "small", "second": {"crop": None}}, "one of the views")],
)
def test_views_without_boxes_are_refused(method: Any, preset: Any, which: str) -> None:
    config = PretrainConfig(method=method, preset=preset)
    with pytest.raises(UserError, match=f"{which} has no crop, and {method} matches.*--preset small"):
        resolve(config, data_of("digits", 8))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sides", [[(40, 56)], [(40, 56), (61, 45)]], ids=["in memory", "streamed"])
def test_a_run_on_images_without_labels(
    method: Any, sides: list[tuple[int, int]], tiny: dict[str, Any], tmp_path: Path
) -> None:
    """Where crops had no boxes in common the loss would be 0."""
    images = [torch.randint(0, 256, (3, *sides[i % len(sides)]), dtype=torch.uint8) for i in range(40)]
    settings = {**tiny, "image_size": 32, "batch_size": 16, "epochs": "3st", "log_every": "1st"}
    settings |= {"holdout": 0, "num_workers": 0}
    run = byol.pretrain(Recorded(images), method=method, out=str(tmp_path / "run"), **settings)
    losses = [record["loss"] for record in run.metrics()]
    assert len(losses) == 3 and all(0.1 < loss < 8 for loss in losses)
    assert RunDirectory(run.path).config()["preset"] == "small"
