"""A run from start to end: what it writes, and that it can be repeated exactly."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

import byol
from byol.bundle import load_backbone
from byol.cli import main
from byol.config import PretrainConfig
from byol.errors import UserError
from byol.methods import Method
from byol.rundir import RunDirectory
from byol.settings import settings_from
from byol.training.checkpoint import load
from byol.training.preparation import prepare_data
from byol.training.resolution import lengths, resolve
from byol.training.run import Run
from tests.scenes import write_scenes
from tests.training.conftest import tiny_net

TIMES = ("seconds", "images_per_second", "data_wait")


def lasting(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return metrics without what a clock decides."""
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def assert_same_tensors(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[name]), name
        elif isinstance(value, Mapping):
            assert_same_tensors(value, second[name])
        else:
            assert value == second[name], name


def assert_same_run(first: Path, second: Path) -> None:
    """Compare everything but times, bit for bit."""
    one, other = RunDirectory(first), RunDirectory(second)
    assert lasting(one.metrics()) == lasting(other.metrics())
    state, other_state = (load(run.last_checkpoint) | {"seconds": None} for run in (one, other))
    assert_same_tensors(state, other_state)
    assert (one.model / "model.safetensors").read_bytes() == (other.model / "model.safetensors").read_bytes()
    assert (one.model / "config.json").read_bytes() == (other.model / "config.json").read_bytes()


@pytest.fixture(scope="module")
def run(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return byol.pretrain("digits", out=str(tmp_path_factory.mktemp("runs") / "run"), **tiny)


def test_run_directory_holds_what_the_design_names(run: Run) -> None:
    files = {str(file.relative_to(run.path)) for file in run.path.rglob("*") if file.is_file()}
    expected = {"config.yaml", "env.json", "metrics.jsonl", "views.png", "checkpoints/last.ckpt"}
    expected |= {"checkpoints/initial.safetensors", "model/model.safetensors", "model/config.json"}
    assert expected <= files
    assert all(name.startswith("tensorboard/") for name in files - expected)
    environment = json.loads((run.path / "env.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0]
    with Image.open(run.path / "views.png") as picture:
        assert min(picture.size) > 200


def test_config_is_resolved_and_holds_no_output_path(run: Run) -> None:
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["image_size"] == 8 and config["channels"] == 1 and config["preset"] == "glyph"
    assert config["base_lr"] == 2e-3 and config["tau"] == 0.97 and config["stem"] == "small"
    assert not {"out", "resume", "debug"} & config.keys()


@pytest.mark.parametrize(("method", "widths"), [("byol", [256, 4096]), ("simsiam", [2048, 2048])])
def test_defaults_that_follow_from_others_are_resolved(
    method: Method, widths: list[int], tiny: dict[str, Any], tmp_path: Path
) -> None:
    """10 epochs of warm-up as published, where the run is 40 or longer; SimSiam has none, and no tau."""
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    config = settings_from(PretrainConfig, {"batch_size": 4, "epochs": 44, "method": method, "holdout": 0})
    found = resolve(config, prepare_data(images, config))
    assert [found.projection_size, found.projection_hidden_size] == widths
    assert (found.warmup, found.tau) == (("40st", 0.97) if method == "byol" else ("0st", None))
    assert resolve(replace(found, tau=0.9), prepare_data(images, config)).tau == (0.9 if found.tau else None)
    assert lengths(found, 4).warmup == (40 if method == "byol" else 0)
    assert lengths(replace(found, warmup=None), 4) == lengths(found, 4), "runs of earlier versions go on"
    settings = {name: value for name, value in tiny.items() if not name.startswith("projection")}
    settings |= {"method": method, "batch_size": 4, "epochs": "9st", "knn_every": "0"}
    stored = RunDirectory(byol.pretrain(images, out=str(tmp_path / "run"), **settings).path).config()
    assert [stored["projection_size"], stored["projection_hidden_size"]] == widths
    assert stored["warmup"] == ("2st" if method == "byol" else "0st")


def test_metrics_are_logged_on_time(run: Run) -> None:
    metrics = run.metrics()
    assert [record["step"] for record in metrics if "loss" in record] == [2, 4, 6]
    assert [record["step"] for record in metrics if "knn" in record] == [3, 6]
    assert all(0 <= record["loss"] <= 8 for record in metrics if "loss" in record)
    assert metrics[-1]["lr"] < metrics[0]["lr"] and metrics[-1]["tau"] == 1.0


def test_the_learning_rate_falls_once_in_the_whole_run(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Steps count, over all epochs: sabadijou's cosine has the batches of an epoch as its period."""
    images = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
    lengths = {"epochs": "3", "warmup": "1", "batch_size": 10, "holdout": 0, "log_every": "1st"}
    run = byol.pretrain(images, out=str(tmp_path / "run"), base_lr=0.512, **{**tiny, **lengths})
    rising = [0.02 * step / 4 for step in range(4)]  # 0.512 x 10 / 256 at the peak
    falling = [0.01 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    found = [record["lr"] for record in run.metrics() if "loss" in record]
    assert found == pytest.approx(rising + falling, rel=1e-9)


def test_global_random_state_is_given_back(tiny: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "epochs": "1st"})
    assert torch.equal(torch.rand(3), expected)


def test_backbone_round_trips_bit_for_bit(run: Run) -> None:
    backbone = run.backbone()
    state = load(RunDirectory(run.path).last_checkpoint)["learner"]
    prefix = "online.backbone.net."
    trained = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    assert_same_tensors(dict(backbone.net.state_dict()), trained)
    assert not backbone.training and backbone.num_features == 64
    assert backbone.preprocess is not None
    digits = torch.from_numpy(load_digits().images[:5]).mul(15).round().to(torch.uint8)[:, None]
    assert backbone(backbone.preprocess(digits)).shape == (5, 64)


def test_weights_moved_from_the_initial_ones(run: Run) -> None:
    from safetensors.torch import load_file

    initial = load_file(RunDirectory(run.path).initial_weights)
    final = run.backbone().net.state_dict()
    moved = [name for name, value in initial.items() if not torch.equal(value, final[name])]
    assert set(moved) == set(initial)


def test_saved_config_reproduces_the_run(run: Run, tmp_path: Path) -> None:
    words = ["pretrain", "--config", str(run.path / "config.yaml"), "--out", str(tmp_path / "again")]
    assert main(words) == 0
    assert_same_run(run.path, tmp_path / "again")


def test_seed_changes_the_run(run: Run, tiny: dict[str, Any], tmp_path: Path) -> None:
    other = byol.pretrain("digits", out=str(tmp_path / "other"), seed=1, **tiny)
    assert lasting(other.metrics()) != lasting(run.metrics())


def test_number_of_workers_does_not_matter(tiny: dict[str, Any], photographs: Path, tmp_path: Path) -> None:
    settings = {**tiny, "image_size": 32, "batch_size": 8, "epochs": "4st"}
    for workers in (0, 2):
        out = str(tmp_path / f"workers{workers}")
        byol.pretrain(f"folder:{photographs}", out=out, num_workers=workers, **settings)
    first, second = (RunDirectory(tmp_path / f"workers{workers}") for workers in (0, 2))
    assert lasting(first.metrics()) == lasting(second.metrics())
    assert_same_tensors(load(first.last_checkpoint)["learner"], load(second.last_checkpoint)["learner"])


def test_accumulation_moves_the_target_once_per_optimizer_step(tiny: dict[str, Any], tmp_path: Path) -> None:
    run = byol.pretrain("digits", out=str(tmp_path / "run"), accumulate=4, **tiny)
    state = load(RunDirectory(run.path).last_checkpoint)
    assert state["step"] == 6 and int(state["learner"]["target.step"]) == 6
    assert {int(entry["step"]) for entry in state["optimizer"]["state"].values()} == {6}


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "simsiam"},
        {"optimizer": "lars"},
        {"optimizer": "sgd"},
        {"precision": "bf16"},
        {"normalization": "group", "precision": "bf16"},
        {"target_statistics": "average"},
        {"gather_projections": True},
    ],
    ids=str,
)
def test_every_method_optimizer_precision_and_option_runs(
    settings: dict[str, Any], tiny: dict[str, Any], tmp_path: Path
) -> None:
    run = byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, **settings})
    losses = [record["loss"] for record in run.metrics() if "loss" in record]
    low, high = (-1, 1) if settings.get("method") == "simsiam" else (0, 8)
    assert len(losses) == 3 and all(low <= loss <= high for loss in losses)
    assert all(value.dtype == torch.float32 for value in run.backbone().parameters())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_step_trains_like_the_eager_one(
    tiny: dict[str, Any],
    make_net: Callable[[], torch.nn.Module],
    tmp_path: Path,
) -> None:
    """A small network. Vector instructions stay on: switched off for this test alone, code that had them was
    once compiled without, in one process with other tests, and that fails."""
    settings = {name: value for name, value in tiny.items() if name != "backbone"}
    settings |= {"hidden_layer": -2, "accumulate": 2}
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (100, 3, 8, 8), dtype=torch.uint8, generator=generator)
    losses = []
    for compiled in ("off", "on"):
        out = str(tmp_path / compiled)
        run = byol.pretrain(images, make_net(), compile=compiled, out=out, **settings)
        losses.append([record["loss"] for record in run.metrics() if "loss" in record])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_simsiam_has_its_own_published_settings(tiny: dict[str, Any], tmp_path: Path) -> None:
    """arXiv 2011.10566, section 3: SGD, learning rate 0.05 per 256 images, decay 1e-4 on all, no warm-up."""
    settings = {name: value for name, value in tiny.items() if name != "optimizer"}
    run = byol.pretrain(
        "digits", out=str(tmp_path / "run"), method="simsiam", **{**settings, "epochs": "1st"}
    )
    state = load(RunDirectory(run.path).last_checkpoint)
    assert {group["weight_decay"] for group in state["optimizer"]["param_groups"]} == {1e-4}
    assert {group["momentum"] for group in state["optimizer"]["param_groups"]} == {0.9}
    assert run.metrics()[-1]["lr"] == pytest.approx(0.05 * 64 / 256)


def test_own_network_tensor_and_dataset(tiny: dict[str, Any], tmp_path: Path) -> None:
    settings = {name: value for name, value in tiny.items() if name != "backbone"} | {"preset": "small"}
    images = torch.randint(0, 256, (100, 3, 32, 32), dtype=torch.uint8)
    net = tiny_net()
    before = net[0].weight.detach().clone()
    run = byol.pretrain(images, net, hidden_layer="3", out=str(tmp_path / "a"), **settings)
    assert not torch.equal(net[0].weight, before)
    assert torch.equal(run.backbone().net[0].weight, net[0].weight) and not run.labelled
    with pytest.raises(UserError, match="pass an untrained copy of it"):
        load_backbone(run.path)
    loaded = load_backbone(run.path, tiny_net())
    assert torch.equal(loaded.net[0].weight, net[0].weight)
    dataset = TensorDataset(images, torch.arange(100) % 2)
    byol.pretrain(dataset, net, hidden_layer=-2, out=str(tmp_path / "b"), **{**settings, "epochs": "2st"})


def test_backbones_without_batch_statistics_come_back(tiny: dict[str, Any], tmp_path: Path) -> None:
    """By name, and as a network of one's own: an untrained copy of it still has batch norms."""
    settings = {**tiny, "epochs": "1st", "normalization": "group"}
    named = byol.pretrain("digits", out=str(tmp_path / "named"), **settings).backbone()
    assert named.normalization == "group" and not list(named.net.buffers())

    def own_net() -> torch.nn.Sequential:
        return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())

    net = own_net()
    own = {name: value for name, value in settings.items() if name != "backbone"}
    run = byol.pretrain("digits", net, out=str(tmp_path / "own"), **own)
    assert not list(net.buffers()), "the network is changed in place"
    images = torch.rand(2, 1, 8, 8)
    expected = run.backbone()(images)
    assert torch.equal(load_backbone(run.path, own_net())(images), expected)


def test_weights_to_start_from(run: Run, tiny: dict[str, Any], tmp_path: Path) -> None:
    weights = run.path / "model" / "model.safetensors"
    settings = {**tiny, "epochs": "1st", "base_lr": 0.0, "backbone_weights": str(weights)}
    again = byol.pretrain("digits", out=str(tmp_path / "run"), **settings)
    parameters, expected = (
        again.backbone().net.named_parameters(),
        dict(run.backbone().net.named_parameters()),
    )
    for name, parameter in parameters:
        assert torch.equal(parameter, expected[name])


def test_weights_of_others_to_start_from(
    tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = timm.create_model("test_resnet")
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "theirs.pt")
    settings = {**tiny, "backbone": "test_resnet", "stem": "standard", "base_lr": 0.0, "epochs": "1st"}
    images = torch.randint(0, 256, (80, 3, 32, 32), dtype=torch.uint8)
    out, weights = str(tmp_path / "run"), str(tmp_path / "theirs.pt")
    run = byol.pretrain(images, out=out, backbone_weights=weights, **settings)
    line = f"left out the classifier in {weights}: fc.weight, fc.bias"
    assert capsys.readouterr().err.splitlines().count(line) == 1
    for name, parameter in run.backbone().net.named_parameters():
        assert torch.equal(parameter, theirs.get_parameter(name))


def test_the_first_line_names_classes_and_masks(
    tiny: dict[str, Any], photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**tiny, "image_size": 32, "batch_size": 8, "epochs": "1st", "num_workers": 0}
    scenes = write_scenes(tmp_path / "scenes", train=24)
    told = {f"folder:{photographs}": "(2 classes: cats, dogs)", f"hf:{scenes}": "(with masks)"}
    for index, (data, words) in enumerate(told.items()):
        byol.pretrain(data, out=str(tmp_path / str(index)), **settings)
        assert words in capsys.readouterr().err


def test_timm_s_weights_to_start_from(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, asked = timm.create_model("test_resnet"), []

    def answer(model_id: str, *args: Any, **settings: Any) -> dict[str, torch.Tensor]:
        asked.append(model_id)
        return dict(theirs.state_dict())

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", answer)
    settings = {**tiny, "backbone": "test_resnet", "stem": "standard", "base_lr": 0.0, "epochs": "1st"}
    images = torch.randint(0, 256, (80, 3, 32, 32), dtype=torch.uint8)
    run = byol.pretrain(images, out=str(tmp_path / "run"), backbone_weights="timm", **settings)
    for name, parameter in run.backbone().net.named_parameters():
        assert torch.equal(parameter, theirs.get_parameter(name))
    assert RunDirectory(run.path).config()["backbone_weights"] == "timm"
    byol.pretrain(images, resume=run.path)  # the checkpoint has them
    assert len(asked) == 1


def test_a_network_in_eval_mode_is_trained_all_the_same(tiny: dict[str, Any], tmp_path: Path) -> None:
    net = tiny_net().eval()
    images = torch.randint(0, 256, (80, 3, 8, 8), dtype=torch.uint8)
    settings = {name: value for name, value in tiny.items() if name != "backbone"}
    byol.pretrain(images, net, hidden_layer=-2, out=str(tmp_path / "run"), **settings)
    assert int(net[1].num_batches_tracked) == 2 * 6  # both views of each step


def test_default_directories_are_numbered(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {**tiny, "epochs": "1st", "batch_size": 8}
    (tmp_path / "my_images").mkdir()
    for number in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / "my_images" / f"{number}.png")
    paths = [byol.pretrain(data, **settings).path for data in ("digits", "digits", "folder:my_images")]
    assert [path.name for path in paths] == ["digits-byol-1", "digits-byol-2", "my-images-byol-1"]


def test_views_keep_their_precision_under_autocast() -> None:
    """Lightning's bf16 runs the whole training step under autocast; pixels must not lose digits to it."""
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    plain = byol.views(images, 32, "imagenet", torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        cast = byol.views(images, 32, "imagenet", torch.Generator().manual_seed(0))
    for view, same in zip(plain, cast, strict=True):
        assert torch.equal(view, same)


@pytest.mark.parametrize("streamed", [False, True])
def test_preset_official_trains(
    streamed: bool, tiny: dict[str, Any], photographs: Path, tmp_path: Path
) -> None:
    settings = {**tiny, "image_size": 32, "batch_size": 8, "preset": "official", "num_workers": 1}
    images = torch.randint(0, 256, (40, 3, 32, 40), dtype=torch.uint8)
    data = f"folder:{photographs}" if streamed else images
    run = byol.pretrain(data, out=str(tmp_path / "run"), **settings)
    losses = [record["loss"] for record in run.metrics() if "loss" in record]
    assert len(losses) == 3 and all(0 < loss < 8 for loss in losses)
    preprocess = run.backbone().preprocess
    assert preprocess is not None and preprocess.crop_fraction == 224 / 256
