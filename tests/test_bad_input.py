"""Errors for people: one line that says what is wrong and what to do, status 2, nothing left behind."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import byol
from byol.augment.evaluation import preprocess_for
from byol.bundle import save_bundle
from byol.cli import main
from byol.core.backbone import Backbone
from byol.core.learner import BYOL
from byol.core.named_backbone import build_backbone
from byol.errors import UserError
from byol.rundir import RunDirectory
from byol.training import checkpoint
from byol.training.errors import NonFiniteError
from tests.scenes import write_parquet, write_scenes

SMALL = ["--backbone", "resnet8_16", "--projection-size", "16", "--projection-hidden-size", "32"]
SMALL += ["--batch-size", "64", "--epochs", "6st", "--optimizer", "adamw", "--checkpoint-every", "2st"]
SMALL += ["--log-every", "1st", "--knn-every", "0"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run every test in a folder of its own, in which whatever is left behind shows."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail; return its one line."""
    before = sorted(Path.cwd().rglob("*"))
    assert main(words) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    errors = [line for line in lines if line.startswith("byol: error: ")]
    assert len(errors) == 1 and lines[-1] == errors[0], captured.err
    assert "Traceback" not in captured.err
    assert sorted(Path.cwd().rglob("*")) == before
    return errors[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretrian"], ["unknown command 'pretrian'", "Did you mean 'pretrain'?"]),
        (["pretrain", "--batchsize", "3"], ["unknown flag --batchsize", "Did you mean '--batch-size'?"]),
        (["pretrain", "--batch", "3"], ["unknown flag --batch"]),
        (["pretrain", "--batch-size", "many"], ["--batch-size cannot be 'many'", "a whole number"]),
        (["embed", "run", "--out", "v.npy", "--num-workers", "-3"], ["num_workers is -3"]),
        (["pretrain", "--batch-size"], ["--batch-size needs a value"]),
        (["pretrain", "--seed", "1", "--seed", "2"], ["--seed is given twice"]),
        (["pretrain", "somewhere"], ["'somewhere' belongs to no flag", "Did you mean --data somewhere?"]),
        (["pretrain", "--method", "simsam"], ["--method cannot be 'simsam'", "Did you mean 'simsiam'?"]),
        (["pretrain", "--normalization", "grup"], ["--normalization", "Did you mean 'group'?"]),
        (
            ["pretrain", "--method", "simsiam", "--target-statistics", "copy"],
            ["target_statistics means nothing with method simsiam: it is for byol"],
        ),
        (
            ["pretrain", "--normalization", "group", "--target-statistics", "copy"],
            ["with group normalisation there are no statistics"],
        ),
        (["pretrain", "--instance-weight", "1"], ["instance_weight", "for pixpro and pixcontrast"]),
        (["pretrain", "--method", "simsiam", "--positive-distance", "1"], ["positive_distance", "simsiam"]),
        (["pretrain", "--feature-layer", "layer3"], ["feature_layer means nothing with method byol"]),
        (
            ["pretrain", "--method", "pixpro", "--preset", "small", "--feature-layer", "global_pool"],
            ["hidden layer 'global_pool' gives no map but", "choose a layer before the pooling"],
        ),
        (["pretrain", "--propagation-layers", "0"], ["propagation_layers", "it is for pixpro"]),
        (["pretrain", "--method", "pixcontrast", "--propagation-gamma", "1"], ["it is for pixpro"]),
        (["pretrain", "--method", "pixpro", "--pixel-temperature", "1"], ["it is for pixcontrast"]),
        (["pretrain", "--method", "pixpro", "--target-statistics", "average"], ["it is for byol"]),
        (["pretrain", "--method", "pixpro", "--gather-projections"], ["it is for byol and simsiam"]),
        (["pretrain", "--method", "pixpro", "--instance-weight", "-1"], ["instance_weight is -1.0"]),
        (["pretrain", "--method", "pixpro", "--positive-distance", "0"], ["must be above 0"]),
        (["pretrain", "--method", "pixpro", "--propagation-gamma", "0.5"], ["must be at least 1"]),
        (["pretrain", "--method", "pixcontrast", "--pixel-temperature", "0"], ["must be above 0"]),
        (["pretrain", "--method", "pixpro", "--propagation-layers", "3"], ["it must be 0, 1 or 2"]),
        (["pretrain", "--method", "pixpro", "--preset", "glyph"], ["preset 'glyph' has no crop", "small"]),
        (["pretrain", "--tau", "2"], ["tau is 2.0", "between 0 and 1"]),
        (["pretrain", "--crop-scale", "0.5"], ["crop_scale means nothing with preset 'glyph'", "no crop"]),
        (["pretrain", "--log-every", "0"], ["log_every is 0", "20st"]),
        (["pretrain", "--warmup-start", "2"], ["warmup_start is 2.0", "between 0 and 1"]),
        (["pretrain", "--base-lr", "0.1", "--final-lr", "0.2"], ["final_lr is 0.2", "the peak", "0.1"]),
        (["pretrain", "--epochs", "ten"], ["epochs is 'ten'", "500st"]),
        (["pretrain", "--epochs", "5%"], ["cannot be a share of itself"]),
        (["pretrain", "--recipe", "cifar10cpu"], ["unknown recipe", "Did you mean 'cifar10-cpu'?"]),
        (["pretrain", "--config", "no.yaml"], ["--config no.yaml", "no such file"]),
        (["pretrain", "--resume", "nowhere"], ["'nowhere' is not a run directory", "no such folder"]),
        (["pretrain", "--data", "folder:nowhere"], ["nowhere"]),
        (["pretrain", "--data", "emnist/letter"], ["EMNIST has six sets", "Did you mean 'emnist/letters'?"]),
        (["pretrain", "--data", "digit"], ["digit", "Did you mean 'digits'?"]),
        (["pretrain", "--backbone", "resnet81"], ["unknown backbone 'resnet81'", "Did you mean"]),
        (["pretrain", "--batch-size", "2000"], ["batch size 2000 is larger than the data: 1167 images"]),
        (["pretrain", "--batch-size", "63", "--devices", "2"], ["2 processes", "make it a multiple of 2"]),
        (["pretrain", "--batch-size", "1"], ["a batch of one image"]),
        (["pretrain", "--batch-size", "6", "--accumulate", "4"], ["does not divide", "multiple of 4"]),
        (["pretrain", "--holdout", "5000"], ["5000", "1297"]),
        (["pretrain", "--channels", "5"], ["channels"]),
        (["pretrain", "--warmup", "200", "--epochs", "100"], ["warm-up", "--warmup"]),
        (["pretrain", "--warmup", "100", "--epochs", "100"], ["warm-up", "--warmup"]),
        (["pretrain", "--backbone-weights", "no.pt"], ["no file with weights at", "no.pt"]),
        (["pretrain", "--backbone", "resnet8_16", "--backbone-weights", "timm"], ["timm has no weights"]),
        (["pretrain", "--backbone-weights", "timm"], ["of the small stem", "Give --stem standard"]),
        (["evaluate", "no.pt", "--backbone", "resnet18"], ["no file with weights at no.pt"]),
        (["evaluate", "x", "--image-size", "0"], ["image_size is 0"]),
        (["evaluate", "x", "--preset", "offical"], ["--preset cannot be", "Did you mean 'official'?"]),
        (["evaluate"], ["the run, bundle or weights file is missing", "byol evaluate RUN"]),
        (["pretrain", "--logger", "mlfow"], ["unknown logger 'mlfow'", "Did you mean 'mlflow'?"]),
        (["pretrain", "--logger", "none,wandb"], ["logger is 'none,wandb'", "none stands alone"]),
        (["evaluate", "run", "--logger", "mlfow"], ["--logger cannot be 'mlfow'", "Did you mean 'mlflow'?"]),
        (["evaluate", "nowhere"], ["nowhere"]),
        (["embed", "nowhere"], ["--out is missing"]),
        (["recipes", "nothing"], ["unknown recipe 'nothing'", "cifar10-cpu"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0] in {"pretrain"} else None,
)
def test_words_and_status(words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(words, capsys)
    for part in expected:
        assert part in line


def test_image_size_that_a_backbone_cannot_take(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["pretrain", "--backbone", "vit_tiny_patch16_224", "--image-size", "8"], capsys)
    assert "vit_tiny_patch16_224" in line and "8" in line


def test_unknown_key_in_config(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.yaml").write_text("batch_sise: 3\n")
    line = refused(["pretrain", "--config", "my.yaml"], capsys)
    assert "unknown setting 'batch_sise' in my.yaml. Did you mean 'batch_size'?" in line


@pytest.mark.parametrize("text", ["- a\n- b\n", "batch_size: [", "seed: x", "data: folder:M\xfcller"])
def test_config_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.yaml").write_text(text, encoding="latin-1")
    assert "my.yaml" in (line := refused(["pretrain", "--config", "my.yaml"], capsys)) or "--seed" in line


def test_folder_without_images(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert "empty" in refused(["pretrain", "--data", "empty"], capsys)


def test_class_folders_that_differ(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        shutil.copytree(photographs, Path("pictures") / split)
    Path("pictures/test/dogs").rename("pictures/test/birds")
    line = refused(["pretrain", "--data", "pictures"], capsys)
    assert (
        "class folders of train/ and test/" in line and "only in train/: dogs; only in test/: birds" in line
    )


def test_unreadable_image_is_named(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = broken_copy(photographs)
    line = refused(streaming(["pretrain", "--data", str(folder), "--image-size", "32", *SMALL]), capsys)
    assert "cats/01.png" in line and "--on-error skip" in line


def test_unreadable_image_met_by_the_monitor_leaves_nothing_or_something_to_resume(
    photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kNN after the first step reads every image: the step is saved, and the run can go on."""
    folder = broken_copy(photographs)
    words = ["pretrain", "--data", str(folder), "--image-size", "32", "--out", "run", *SMALL]
    words[words.index("--knn-every") + 1] = "1st"
    words[words.index("--batch-size") + 1] = "2"
    status = main(words)
    assert status == 2 and "cats/01.png" in capsys.readouterr().err
    assert not Path("run").exists() or checkpoint.load(RunDirectory("run").last_checkpoint)["step"] >= 1


def test_names_that_are_not_utf8(photographs: Path, tmp_path: Path) -> None:
    """Such as old archives hold: the images count like others, to the end."""
    folder = tmp_path / "old"
    shutil.copytree(photographs, folder)
    first = sorted(folder.rglob("*.png"))[0]
    first.rename(first.parent / os.fsdecode(b"caf\xe9.png"))
    words = ["pretrain", "--data", str(folder), "--image-size", "32", *SMALL, "--out", "run"]
    words[words.index("--batch-size") + 1] = "20"
    assert main(words) == 0
    assert main(["evaluate", "run", "--protocol", "knn", "--report"]) == 0
    assert main(["embed", "run", "--out", "vectors.parquet"]) == 0
    assert "cats/caf\\udce9.png" in pq.read_table("vectors.parquet")["id"].to_pylist()


def test_a_crash_leaves_the_log_of_what_was_trained(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step there is nothing to look into."""
    for crashes_at, left in ((4, True), (0, False)):
        learned = count()

        def crash(learner: Any, learned: Iterator[int] = learned, crashes_at: int = crashes_at) -> None:
            if next(learned) == crashes_at:
                raise RuntimeError("CUDA error: an illegal memory access")

        monkeypatch.setattr(BYOL, "update_moving_average", crash)
        out = Path(f"run-{crashes_at}")
        with pytest.raises(RuntimeError, match="CUDA error"):
            byol.pretrain("digits", out=str(out), **{**tiny, "checkpoint_every": "6st"})
        assert out.exists() == left
    assert [record["step"] for record in RunDirectory("run-4").metrics() if "loss" in record] == [2, 4]


@pytest.mark.parametrize("full_at", [0, 3])
def test_memory_of_the_gpu_is_full(
    full_at: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of a step, whose weights are not to be saved."""
    steps, original = count(), BYOL.compare_in_turn

    def compare(learner: BYOL, *views: Any) -> Any:
        if next(steps) == full_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(learner, *views)

    monkeypatch.setattr(BYOL, "compare_in_turn", compare)
    assert main(["pretrain", *SMALL, "--out", "run"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("byol: error: the GPU's memory") and "--accumulate 2" in line
    assert Path("run").exists() == (full_at > 0)
    if full_at:
        assert checkpoint.load(RunDirectory("run").last_checkpoint)["step"] == 2


@pytest.mark.parametrize("command", [["evaluate"], ["embed", "--split", "test", "--out", "vectors.npy"]])
def test_memory_of_the_gpu_is_full_after_training(
    command: list[str],
    tiny: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    byol.pretrain("digits", out="run", **{**tiny, "epochs": "1st", "knn_every": "0"})

    def fail(error: Exception) -> None:
        original = Backbone.forward

        def forward(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
            if len(images) > 2:  # which opening a run looks at
                raise error
            return original(backbone, images)

        monkeypatch.setattr(Backbone, "forward", forward)

    fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    line = refused([command[0], "run", *command[1:]], capsys)
    assert "the GPU's memory is full" in line and "--precision bf16" in line
    fail(RuntimeError("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal"):  # what nobody foresaw keeps its traceback
        main([command[0], "run", *command[1:]])


def test_unreadable_images_are_skipped_and_reported(
    photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = broken_copy(photographs)
    words = ["pretrain", "--data", str(folder), "--image-size", "32", *SMALL, "--out", "run"]
    words[words.index("--batch-size") + 1] = "20"
    assert main([*words, "--on-error", "skip"]) == 0
    assert "left out 1 unreadable image: cats/01.png" in capsys.readouterr().err
    assert json.loads(Path("run/env.json").read_text())["left_out"] == ["cats/01.png"]
    assert "cats/01.png" in refused(["evaluate", "run"], capsys)  # evaluation never skips
    (folder / "cats" / "01.png").unlink()
    assert main(["evaluate", "run", "--protocol", "knn"]) == 0


def broken_copy(photographs: Path) -> Path:
    """Copy the pictures and cut one of them short."""
    folder = Path("pictures")
    shutil.copytree(photographs, folder)
    picture = folder / "cats" / "01.png"
    picture.write_bytes(picture.read_bytes()[:60])
    return folder


def streaming(words: list[str]) -> list[str]:
    """Make a batch of every picture: the first step reads them all, in a worker."""
    words = list(words)
    words[words.index("--batch-size") + 1] = "20"
    return [*words, "--holdout", "0", "--num-workers", "1"]


def test_existing_directory_is_never_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/thesis.txt").write_text("precious")
    line = refused(["pretrain", "--out", "run", *SMALL], capsys)
    assert "'run' exists" in line and "--resume" not in line
    assert Path("run/thesis.txt").read_text() == "precious"
    Path("run/checkpoints").mkdir()
    Path("run/checkpoints/last.ckpt").touch()
    assert "continue it with --resume run" in refused(["pretrain", "--out", "run", *SMALL], capsys)


def test_resume_without_checkpoint_and_with_other_settings(
    tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    byol.pretrain("digits", out="run", **{**tiny, "epochs": "1st"})
    line = refused(["pretrain", "--resume", "run", "--batch-size", "3"], capsys)
    assert "--batch-size" in line and "--devices" in line
    RunDirectory("run").last_checkpoint.write_bytes(b"not a checkpoint")
    assert "last.ckpt is damaged, or no checkpoint" in refused(["pretrain", "--resume", "run"], capsys)
    RunDirectory("run").last_checkpoint.unlink()
    assert "no checkpoint to resume from" in refused(["pretrain", "--resume", "run"], capsys)


def test_weights_files_that_cannot_be_judged(
    tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    net = build_backbone("resnet8_16", 8, channels=1)
    torch.save(net.net.state_dict(), "weights.pt")
    torch.save(net, "pickled.pt")
    Path("text.pt").write_text("hello world")
    byol.pretrain("digits", out="run", **{**tiny, "epochs": "1st"})
    named = ["--backbone", "resnet8_16", "--data", "digits"]
    cases: list[tuple[list[str], list[str]]] = [
        (["weights.pt", "--data", "digits"], ["weights.pt holds weights alone", "--backbone"]),
        (["weights.pt", "--backbone", "resnet8_16"], ["--data"]),
        (["weights.pt", "--backbone", "resnet14_32", "--data", "digits"], ["missing: layer1.1.conv1.weight"]),
        (["weights.pt", *named, "--channels", "3"], ["conv1.weight (16x1x3x3", "is 16x3x3x3", "--channels"]),
        (["weights.pt", *named, "--channels", "5"], ["channels"]),
        (["pickled.pt", *named], ["a whole network perhaps", "torch.save(net.state_dict()"]),
        (["text.pt", *named], ["text.pt holds no state dict"]),
        (["run", *named], ["--backbone is for a plain weights file"]),
    ]
    for words, expected in cases:
        for command in (["evaluate"], ["embed", "--out", "vectors.npy"]):
            line = refused([*command, *words], capsys)
            assert all(part in line for part in expected), line


def test_evaluation_of_data_without_labels(tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    byol.pretrain("digits", out="run", **{**tiny, "epochs": "1st"})
    Path("flat").mkdir()
    for index in range(4):
        Image.fromarray(np.full((8, 8), 60 * index, dtype=np.uint8)).save(f"flat/{index}.png")
    line = refused(["evaluate", "run", "--data", "folder:flat"], capsys)
    assert "label" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--labels", "5"], ["segmentation learns from all masks: use --labels all"]),
        (["--protocol", "segmentation,knn"], ["judge by masks, the other protocols by labels"]),
        (["--protocol", "patch_knn", "--heads", "fcn"], ["--heads concerns --protocol segmentation only"]),
        (["--heads", "fnc"], ["unknown head 'fnc'. Did you mean 'fcn'?"]),
        (["--plot"], ["--plot is for protocols that judge by labels"]),
        (["--metric", "mean_per_class"], ["--metric is for protocols that judge by labels"]),
        (["--void", "256"], ["void is 256", "0..255"]),
        (["--protocol", "knn", "--void", "0"], ["--void concerns --protocol segmentation or patch_knn only"]),
        (["--data", "digits"], ["digits has no masks", "called mask"]),
        (["--data", "hf:small"], ["image 'test/0' is 32x24 pixels, but its mask 30x24"]),
        (["--data", "hf:wrong"], ["image 'test/0' holds 9", "none of the 3 classes 0..2 and not void (255)"]),
        (["--data", "hf:good", "--classes", "a,b"], ["image 'train/", "holds 2", "2 classes"]),
        (["--data", "hf:colours"], ["cannot read the mask of image 'test/0'", "mode RGB"]),
        (["--data", "hf:good", "--protocol", "knn"], ["has no labels", "--protocol segmentation"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else None,
)
def test_segmentation(
    words: list[str], expected: list[str], segmented: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "run", "--data-dir", str(segmented / "downloads")]
    command += [] if "--protocol" in words else ["--protocol", "segmentation"]
    line = refused([*command, *words], capsys)
    assert all(part in line for part in expected), line


@pytest.fixture
def segmented(tmp_path: Path) -> Path:
    """Make a run on grey digits, whose network takes pictures too, and data with masks that do not fit."""
    image, mask = np.zeros((24, 32, 3), dtype=np.uint8), np.zeros((24, 32), dtype=np.uint8)
    tests = {"small": mask[:, :30], "wrong": mask + 9, "colours": image, "good": mask}
    for name, bad in tests.items():
        folder = write_scenes(Path(name), train=10)
        write_parquet(folder / "test.parquet", [(image, bad)])
    backbone = build_backbone("resnet8_16", 24, channels=3)
    backbone.preprocess = preprocess_for("small", 24, 3)
    run = RunDirectory("run")
    run.checkpoints.mkdir(parents=True)
    run.write_config({"data": "digits", "method": "byol", "holdout": 0.1, "seed": 0})
    save_bundle(run.model, backbone, {"method": "byol", "data": "digits", "epoch": 1, "seed": 0})
    return tmp_path


def test_channel_counts_that_disagree(
    tiny: dict[str, Any], photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.randint(0, 256, (80, 5, 8, 8), dtype=torch.uint8)
    byol.pretrain(images, out="run", **{**tiny, "epochs": "1st"})
    line = refused(["evaluate", "run", "--data", f"folder:{photographs}"], capsys)
    assert "channel" in line and "5" in line


def test_tensor_with_channels_last(tiny: dict[str, Any]) -> None:
    images = torch.randint(0, 256, (80, 12, 9, 3), dtype=torch.uint8)
    with pytest.raises(UserError, match=r"looks like \[N,H,W,C\]: permute\(0, 3, 1, 2\)"):
        byol.pretrain(images, out="run", **tiny)


def test_glyph_views_of_oblong_images(tiny: dict[str, Any]) -> None:
    """Training would squeeze them, evaluation would cut their centre out."""
    images = torch.randint(0, 256, (80, 1, 8, 12), dtype=torch.uint8)
    with pytest.raises(UserError, match="preset 'glyph' has no crop: it takes square images"):
        byol.pretrain(images, out="run", **{**tiny, "preset": "glyph"})
    assert not Path("run").exists()


def test_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = BYOL.compare_in_turn

    def broken_later(self: BYOL, view1: torch.Tensor, view2: torch.Tensor, share: float) -> Any:
        output = original(self, view1, view2, share)
        bad = self.target is not None and int(self.target.step) >= 4
        return replace(output, loss=output.loss * float("nan")) if bad else output

    monkeypatch.setattr(BYOL, "compare_in_turn", broken_later)
    with pytest.raises(NonFiniteError, match="last good checkpoint is kept"):
        byol.pretrain("digits", out="run", **{**tiny, "checkpoint_every": "2st", "log_every": "5st"})
    state = checkpoint.load(RunDirectory("run").last_checkpoint)
    assert state["step"] == 4
    assert all(value.isfinite().all() for value in state["learner"].values())


def test_exploding_weights_are_not_saved(tiny: dict[str, Any]) -> None:
    settings = {**tiny, "optimizer": "sgd", "base_lr": 1e30, "checkpoint_every": "1st", "log_every": "6st"}
    with pytest.raises(NonFiniteError, match="Lower --base-lr"):
        byol.pretrain("digits", out="run", **settings)
    file = RunDirectory("run").last_checkpoint
    if file.is_file():
        assert all(value.isfinite().all() for value in checkpoint.load(file)["learner"].values())


def test_disk_full_half_way_through_a_save(
    tiny: dict[str, Any],
) -> None:
    """The third save runs into the end of the disk after a few bytes."""
    original, saves = torch.save, []

    def save(state: Any, stream: Any) -> None:
        saves.append(state["step"])
        if len(saves) >= 3:
            stream.write(b"half a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(state, stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(UserError, match=r"cannot save .*No space left on device.* intact"):
            byol.pretrain("digits", out="run", **{**tiny, "checkpoint_every": "1st"})
    assert checkpoint.load(RunDirectory("run").last_checkpoint)["step"] == 2
    names = {file.name for file in RunDirectory("run").checkpoints.iterdir()}
    assert names == {"last.ckpt", "initial.safetensors"}
    byol.pretrain(resume="run")


def test_file_size_limit_of_the_system(tmp_path: Path) -> None:
    """The same with a limit that the system itself enforces, in a process of its own."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    words = [sys.executable, "-m", "byol", "pretrain", *SMALL, "--out", "run"]
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 2, done.stderr
    assert "byol: error: cannot save" in done.stderr and "Traceback" not in done.stderr
    assert not Path("run").exists()
