"""Runs with views of one's own: the same from YAML, from Python and from their own config.yaml."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import byol
from byol.augment.presets import PRESETS, Crop, Jitter, ViewSpec
from byol.cli import main
from byol.rundir import RunDirectory
from byol.training.errors import Interrupted
from byol.training.module import Pretraining
from byol.training.run import Run
from tests.training.test_pretrain import assert_same_run, lasting

TEXT = """
preset:
  base: small
  crop: {scale: [0.4, 1.0]}
  flip: 0.25
  jitter: {brightness: 3e-1}
  first: {blur: 0.5, blur_sigma: [0.1, 1.0]}
  second: {solarize: 0.25, jitter: null}
"""
CROP = Crop(scale=(0.4, 1.0), interpolation="bilinear")
FIRST = ViewSpec(CROP, flip=0.25, jitter=Jitter(brightness=0.3), grey=0.2, blur=0.5, blur_sigma=(0.1, 1.0))
SECOND = ViewSpec(CROP, flip=0.25, grey=0.2, solarize=0.25)


@pytest.fixture(scope="module")
def run(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = str(tmp_path_factory.mktemp("runs") / "python")
    return byol.pretrain("digits", preset=(FIRST, SECOND), out=out, **tiny)


def command(folder: Path, text: str, *more: str) -> list[str]:
    file = folder / "own.yaml"
    file.write_text(text)
    return ["pretrain", "--config", str(file), "--out", str(folder / "run"), *more]


def test_yaml_and_python_give_the_same_run(run: Run, tiny: dict[str, Any], tmp_path: Path) -> None:
    assert main(command(tmp_path, TEXT + yaml.safe_dump({"data": "digits", **tiny}))) == 0
    assert_same_run(run.path, tmp_path / "run")
    assert RunDirectory(tmp_path / "run").config() == RunDirectory(run.path).config()


def test_the_run_s_own_config_says_all_and_gives_the_same_run(run: Run, tmp_path: Path) -> None:
    stored = yaml.safe_load((run.path / "config.yaml").read_text())["preset"]
    assert set(stored) == {"first", "second"} and set(stored["first"]) == set(ViewSpec.__dataclass_fields__)
    assert stored["first"]["crop"] == {
        "scale": [0.4, 1.0],
        "ratio": [3 / 4, 4 / 3],
        "interpolation": "bilinear",
    }
    assert stored["first"]["jitter"]["hue"] == 0.1 and stored["second"]["jitter"] is None
    assert (
        main(["pretrain", "--config", str(run.path / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    )
    assert_same_run(run.path, tmp_path / "again")


def test_the_views_matter(run: Run, tiny: dict[str, Any], tmp_path: Path) -> None:
    swapped = byol.pretrain("digits", preset=(SECOND, FIRST), out=str(tmp_path / "swapped"), **tiny)
    assert lasting(swapped.metrics()) != lasting(run.metrics())


def test_a_stopped_run_goes_on_exactly(
    run: Run, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Pretraining.training_step

    def stopped_at_four(self: Pretraining, *arguments: Any) -> Any:
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    monkeypatch.setattr(Pretraining, "training_step", stopped_at_four)
    with pytest.raises(Interrupted):
        byol.pretrain("digits", preset=(FIRST, SECOND), out=str(tmp_path / "run"), **tiny)
    monkeypatch.setattr(Pretraining, "training_step", step)
    assert main(["pretrain", "--resume", str(tmp_path / "run")]) == 0
    assert_same_run(run.path, tmp_path / "run")


def test_named_views_written_out_give_the_named_run_also_where_images_are_streamed(
    tiny: dict[str, Any], photographs: Path, tmp_path: Path
) -> None:
    settings = {**tiny, "image_size": 32, "batch_size": 8, "epochs": "2st", "num_workers": 0}
    for name, preset in (("named", "small"), ("own", PRESETS["small"])):
        byol.pretrain(f"folder:{photographs}", preset=preset, out=str(tmp_path / name), **settings)
    assert_same_run_but_for_settings(tmp_path / "named", tmp_path / "own")


def assert_same_run_but_for_settings(first: Path, second: Path) -> None:
    assert lasting(RunDirectory(first).metrics()) == lasting(RunDirectory(second).metrics())
    for name in ("model/model.safetensors", "model/config.json", "views.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize(("size", "fraction"), [(112, 224 / 256), (32, 1.0)])
def test_images_are_cut_at_test_time_as_by_default(
    size: int, fraction: float, tiny: dict[str, Any], tmp_path: Path
) -> None:
    images = torch.randint(0, 256, (32, 3, size, size), dtype=torch.uint8)
    settings = {**tiny, "batch_size": 16, "epochs": "1st"}
    run = byol.pretrain(images, preset=(FIRST, SECOND), out=str(tmp_path / "run"), **settings)
    preprocess = run.backbone().preprocess
    assert preprocess is not None and preprocess.crop_fraction == fraction


def test_a_flag_replaces_them_and_may_hold_them(tiny: dict[str, Any], tmp_path: Path) -> None:
    settings = yaml.safe_dump({"data": "digits", **tiny, "epochs": "1st"})
    (tmp_path / "named").mkdir()
    assert main(command(tmp_path / "named", TEXT + settings, "--preset", "glyph")) == 0
    assert RunDirectory(tmp_path / "named" / "run").config()["preset"] == "glyph"
    assert main(command(tmp_path, settings, "--preset", "{base: small, flip: 0}")) == 0
    stored = RunDirectory(tmp_path / "run").config()["preset"]
    assert stored["first"]["flip"] == 0 and stored["second"]["grey"] == 0.2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preset: {flp: 0.5}", "unknown setting 'flp' in preset. Did you mean 'flip'?"),
        ("preset: {first: {blur: 1.5}}", "preset.first: blur is 1.5, it must lie between 0 and 1"),
        ("preset: smal", "simsiam-small, pixpro, small, glyph; or names and values. Did you mean 'small'?"),
        ("preset: [0.5, 0.5]", "it must be a name, two ViewSpecs, or names and values"),
        ("preset: {flip: 0.5}", "one of the views has no crop: it takes square images of one size"),
    ],
)
def test_bad_views_are_one_line_and_leave_nothing(
    text: str, message: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, text, "--data", f"folder:{photographs}")) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
