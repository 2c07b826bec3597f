"""`byol evaluate --protocol segmentation,patch_knn` of every kind of target and data, on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from byol.augment.evaluation import Preprocess
from byol.bundle import save_bundle
from byol.cli import main
from byol.core.backbone import Backbone
from byol.core.named_backbone import build_backbone
from byol.rundir import RunDirectory
from tests.scenes import write_scenes

MakeRun = Callable[..., RunDirectory]
BOTH = ["--protocol", "segmentation,patch_knn", "--heads", "linear", "--device", "cpu"]
MASKS = {(name, metric) for name in ("segmentation", "patch_knn") for metric in ("miou", "pixel_accuracy")}


def resnet() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone("resnet8_16", 24, channels=3)
    backbone.preprocess = Preprocess(24, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return backbone.eval()


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    folder = write_scenes(tmp_path / "scenes", train=30, val=5, test=6)
    return ["--data", f"hf:{folder}", "--data-dir", str(tmp_path / "downloads")]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    origin = {"method": "byol", "data": "x", "epoch": 7.0, "seed": 3}
    save_bundle(tmp_path / "bundle", resnet(), origin)
    return tmp_path / "bundle"


@pytest.fixture
def run(make_run: MakeRun, tmp_path: Path) -> RunDirectory:
    """A run on scenes that have neither a validation nor a test split."""
    folder = write_scenes(tmp_path / "scenes", train=40)
    made = make_run(data=f"hf:{folder}", data_dir=str(tmp_path / "downloads"), holdout=0.25)
    save_bundle(made.model, resnet(), {})
    return made


def values(file: Path) -> dict[tuple[str, str, str], float]:
    return {(r["protocol"], r["metric"], r["split"]): r["value"] for r in json.loads(file.read_text())}


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail; return the only line that it writes."""
    capsys.readouterr()  # progress bars of the fixtures
    assert main(["evaluate", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_a_bundle_and_its_weights_alone_give_the_same_numbers(
    bundle: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(resnet().net.state_dict(), tmp_path / "weights.pth")
    network = ["--backbone", "resnet8_16", "--image-size", "24"]
    named = [
        (tmp_path / "a.json", [str(bundle)]),
        (tmp_path / "b.json", [str(tmp_path / "weights.pth"), *network]),
    ]
    for out, target in named:
        assert main(["evaluate", *target, *data, *BOTH, "--out", str(out), "--report"]) == 0
        shown = capsys.readouterr().out
        assert "miou" in shown and "pixel accuracy" in shown
        assert out.with_name(f"{out.stem}-reports").joinpath("segmentation-linear.json").is_file()
    first, second = (values(out) for out, _ in named)
    assert first == second and {key[:2] for key in first} == MASKS
    assert {split for _, _, split in first} == {"test"}
    record = json.loads((tmp_path / "b.json").read_text())[0]
    assert record["settings"]["backbone"] == "resnet8_16" and record["features"] == "unknown"


def test_without_a_test_split_the_run_s_hold_out_is_scored(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run.path), *BOTH, "--report"]) == 0
    assert "10 holdout images" in capsys.readouterr().out
    found = values(run.results_file)
    assert {*found} == {(*row, "holdout") for row in MASKS} and all(0.2 < v <= 1 for v in found.values())
    assert run.results()[0]["settings"]["chosen_on"] == "holdout"
    assert json.loads((run.reports / "segmentation-linear.json").read_text())["images"] == 10


def test_the_default_protocol_names_the_one_for_masks(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused([str(run.path)], capsys)
    assert "has no labels" in line and "--protocol segmentation" in line


def test_a_network_without_a_map(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(resnet().net.state_dict(), tmp_path / "weights.pth")
    network = ["--backbone", "resnet8_16", "--image-size", "1", "--out", str(tmp_path / "out.json")]
    line = refused([str(tmp_path / "weights.pth"), *network, *data, *BOTH], capsys)
    assert line.startswith("byol: error: no layer of the network gives a map of more than one place")
    assert not (tmp_path / "out.json").exists()


def test_a_folder_misnamed_camvid(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_scenes(tmp_path / "camvid", train=12, val=2, test=3)
    words = [str(bundle), "--data", f"hf:{folder}", "--data-dir", str(tmp_path / "downloads"), *BOTH]
    line = refused(words, capsys)
    assert "the mask of image 'train/0' holds 255, which is none of the 11 classes 0..10" in line
    assert line.endswith("give byol evaluate --classes and --void")
    assert main(["evaluate", *words, "--classes", "ground,red,blue", "--void", "255"]) == 0
