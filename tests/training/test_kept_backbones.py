"""`--backbone-every`: a bundle of each period that other commands take, whatever interrupts the run."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import byol
from byol.bundle import load_backbone
from byol.rundir import RunDirectory
from byol.training.checkpoint import load
from byol.training.run import Run
from tests.training.test_pretrain import assert_same_run, assert_same_tensors
from tests.training.test_resume import stopping_at

SETTINGS = {"epochs": "8st", "backbone_every": "3st", "checkpoint_every": "4st", "knn_every": "0"}


@pytest.fixture(scope="module")
def run(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return byol.pretrain("digits", out=str(tmp_path_factory.mktemp("kept") / "run"), **{**tiny, **SETTINGS})


def kept(run: Path) -> dict[str, Path]:
    return {folder.name: folder for folder in sorted((run / "checkpoints").glob("backbone-*"))}


def test_one_bundle_each_period(run: Run) -> None:
    bundles = kept(run.path)
    assert list(bundles) == ["backbone-00000003", "backbone-00000006"]
    steps_per_epoch = 1167 // 64
    for step, folder in zip((3, 6), bundles.values(), strict=True):
        assert load_backbone(folder).origin["epoch"] == pytest.approx(step / steps_per_epoch, abs=1e-4)
    first, second = (load_file(folder / "model.safetensors") for folder in bundles.values())
    last = load_file(run.path / "model" / "model.safetensors")
    assert all(not first[name].equal(second[name]) and not second[name].equal(last[name]) for name in last)


def test_a_kept_backbone_is_what_the_run_was_then(run: Run, tiny: dict[str, Any], tmp_path: Path) -> None:
    with stopping_at(6):
        byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, **SETTINGS, "backbone_every": "0"})
    assert kept(tmp_path / "run") == {}
    then = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert_same_tensors(then, load_file(kept(run.path)["backbone-00000006"] / "model.safetensors"))


def test_evaluate_takes_one(run: Run) -> None:
    bundle = kept(run.path)["backbone-00000003"]
    result = byol.evaluate(str(bundle), data="digits", protocol="knn")[0]
    assert result.epoch == load_backbone(bundle).origin["epoch"] and result.value > 0.5


@pytest.mark.parametrize("lost", [False, True], ids=["stopped", "killed"])
def test_resuming_neither_loses_nor_repeats_one(
    run: Run, tiny: dict[str, Any], tmp_path: Path, lost: bool
) -> None:
    """Stopped after step 7; or killed there, after the bundle of step 6 and with the checkpoint of step 4."""
    out = tmp_path / "run"
    with stopping_at(4 if lost else 7):
        byol.pretrain("digits", out=str(out), **{**tiny, **SETTINGS})
    if lost:
        shutil.copytree(kept(run.path)["backbone-00000003"], out / "checkpoints" / "backbone-00000006")
    assert load(RunDirectory(out).last_checkpoint)["step"] == (4 if lost else 7)
    byol.pretrain(resume=out)
    assert_same_run(run.path, out)
    assert kept(out).keys() == kept(run.path).keys()
    for name, folder in kept(run.path).items():
        for file in ("model.safetensors", "config.json"):
            assert (folder / file).read_bytes() == (kept(out)[name] / file).read_bytes(), name
