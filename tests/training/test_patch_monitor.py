"""Data with masks alone: what lies where is the monitor, in the place of kNN."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

import byol
from byol.cli import main
from byol.training.progress import Progress
from tests.scenes import VOID, scenes, write_parquet, write_scenes
from tests.training.test_pretrain import lasting

Spoil = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def test_patch_knn_is_measured_on_the_hold_out(tmp_path: Path, tiny: dict[str, Any], capsys: Any) -> None:
    folder = write_scenes(tmp_path / "scenes", train=70, val=2)
    settings = {**tiny, "image_size": 16, "data_dir": str(tmp_path / "downloads"), "batch_size": 63}
    run = byol.pretrain(f"hf:{folder}", out=str(tmp_path / "run"), **settings)
    found = {r["step"]: r["patch_knn"] for r in run.metrics() if "patch_knn" in r}
    assert [*found] == [3, 6] and all(0.4 < value <= 1 for value in found.values())
    assert "patch kNN" in capsys.readouterr().err
    assert not any("knn" in record for record in run.metrics())


def test_other_splits_change_nothing(tmp_path: Path, tiny: dict[str, Any]) -> None:
    """Pretraining is on train alone, and so is what is watched meanwhile."""
    alone = write_scenes(tmp_path / "alone", train=70)
    whole = write_scenes(tmp_path / "whole", train=70, validation=9, test=9)
    settings = {**tiny, "image_size": 16, "data_dir": str(tmp_path / "downloads"), "batch_size": 63}
    first, second = (
        byol.pretrain(f"hf:{folder}", out=str(tmp_path / f"run-{folder.name}"), **settings)
        for folder in (alone, whole)
    )
    assert lasting(first.metrics()) == lasting(second.metrics())
    weights = [load_file(run.path / "model" / "model.safetensors") for run in (first, second)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_what_to_do_next(tmp_path: Path, tiny: dict[str, Any], capsys: Any) -> None:
    folder = write_scenes(tmp_path / "scenes", train=70)
    settings = {**tiny, "image_size": 16, "epochs": "1st", "batch_size": 8, "out": tmp_path / "run"}
    settings |= {"data": f"hf:{folder}", "data_dir": tmp_path / "downloads"}
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["pretrain", *words]) == 0
    assert f"next: byol evaluate {tmp_path / 'run'} --protocol segmentation\n" in capsys.readouterr().out


def test_a_network_without_a_map_is_trained_without_the_monitor(
    tmp_path: Path, tiny: dict[str, Any], capsys: Any
) -> None:
    folder = write_scenes(tmp_path / "scenes", train=70)
    settings = {**tiny, "image_size": 16, "data_dir": str(tmp_path / "downloads"), "batch_size": 63}
    settings["backbone"] = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
    run = byol.pretrain(f"hf:{folder}", out=str(tmp_path / "run"), channels=3, **settings)
    assert run.metrics()[-1]["step"] == 6
    assert not any("patch_knn" in record for record in run.metrics())
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning"))
    assert line.startswith("warning: no patch kNN beside the training: no layer of the network gives a map")


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("camvid", lambda mask: mask, "holds 255, which is none of the 11 classes"),
        ("scenes", lambda mask: np.full_like(mask, VOID), "hold nothing but void (255)"),
        ("scenes", lambda mask: np.stack([mask] * 3, axis=2), "cannot read the mask of image 'train/"),
        ("scenes", lambda mask: mask[:20], "is 32x24 pixels, but its mask 32x20"),
    ],
)
def test_masks_that_do_not_fit_leave_the_training_alone(
    name: str, spoil: Spoil, message: str, tmp_path: Path, tiny: dict[str, Any], capsys: Any
) -> None:
    part = scenes(70)
    rows = [(part[i].permute(1, 2, 0).numpy(), spoil(part.masks[i].numpy())) for i in range(70)]
    (tmp_path / name).mkdir()
    write_parquet(tmp_path / name / "train.parquet", rows)
    settings = {**tiny, "image_size": 16, "data_dir": str(tmp_path / "downloads"), "batch_size": 63}
    run = byol.pretrain(f"hf:{tmp_path / name}", out=str(tmp_path / "run"), **settings)
    assert run.metrics()[-1]["step"] == 6
    assert not any("patch_knn" in record for record in run.metrics())
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning"))
    assert line.startswith("warning: no patch kNN beside the training: ") and message in line


def test_the_line_says_which_knn_it_shows() -> None:
    record = {"step": 1, "epoch": 1.0, "loss": 1.0, "images_per_second": 1.0, "data_wait": 0.0}
    for metric, words in (("knn", "  kNN 50.0%"), ("patch_knn", "  patch kNN 50.0%")):
        stream = io.StringIO()
        progress = Progress(2, stream)
        progress.show({"step": 1, metric: 0.5})
        progress.show(record)
        assert words in stream.getvalue()
