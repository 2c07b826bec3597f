"""Bundles: what is saved comes back bit for bit, and what does not fit is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import byol
from byol.augment.evaluation import Preprocess
from byol.bundle import bundle_folder, save_bundle
from byol.core.backbone import Backbone
from byol.core.named_backbone import build_backbone
from byol.errors import UserError

PREPROCESS = Preprocess(16, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), crop_fraction=0.875, interpolation="bilinear")
ORIGIN = {"method": "byol", "data": "digits", "epoch": 3, "seed": 7}


def own_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(784, 2))


def trained(backbone: Backbone) -> Backbone:
    """Give a backbone weights and running statistics that no constructor gives."""
    backbone.preprocess = PREPROCESS
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter))
        backbone.train()(torch.rand(4, 3, 16, 16))
    return backbone


@pytest.fixture
def named(tmp_path: Path) -> tuple[Path, Backbone]:
    backbone = build_backbone("resnet8_16", 16)
    save_bundle(tmp_path / "bundle", trained(backbone), ORIGIN)
    return tmp_path / "bundle", backbone


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Backbone]:
    backbone = trained(Backbone(own_net(), 16, hidden_layer=2))
    save_bundle(tmp_path / "own", backbone, ORIGIN)
    return tmp_path / "own", backbone


def state_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def assert_same_network(loaded: Backbone, saved: Backbone) -> None:
    mine, theirs = loaded.net.state_dict(), saved.net.state_dict()
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(mine[name], tensor) and mine[name].dtype == tensor.dtype, name
    assert any("running_mean" in name for name in mine)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(loaded(images), saved.eval()(images))


def test_a_named_backbone_comes_back_bit_for_bit(named: tuple[Path, Backbone]) -> None:
    path, saved = named
    loaded = byol.load_backbone(path)
    assert_same_network(loaded, saved)
    assert not any(module.training for module in loaded.modules())
    assert loaded.preprocess == PREPROCESS and loaded.origin == ORIGIN
    assert loaded.num_features == saved.num_features == 64
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_run_directory_holds_one(named: tuple[Path, Backbone], tmp_path: Path) -> None:
    path, saved = named
    (tmp_path / "run").mkdir()
    path.rename(tmp_path / "run/model")
    assert_same_network(byol.load_backbone(str(tmp_path / "run")), saved)


def test_an_older_bundle_is_replaced(named: tuple[Path, Backbone]) -> None:
    path, backbone = named
    save_bundle(path, trained(backbone), {**ORIGIN, "epoch": 4})
    loaded = byol.load_backbone(path)
    assert_same_network(loaded, backbone)
    assert loaded.origin["epoch"] == 4


def test_layouts_and_shared_weights_are_no_obstacle(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1)
            self.second = self.first

        def forward(self, images: Tensor) -> Tensor:
            return self.pool(self.second(self.first(images)))

    net = Tied().to(memory_format=torch.channels_last)
    saved = Backbone(net, 16, preprocess=PREPROCESS).eval()
    save_bundle(tmp_path / "bundle", saved, ORIGIN)
    loaded = byol.load_backbone(tmp_path / "bundle", Tied())
    assert torch.equal(loaded.net.first.weight, net.first.weight)
    assert loaded.net.first is loaded.net.second


def test_the_users_own_network_is_needed(own: tuple[Path, Backbone]) -> None:
    path, saved = own
    with pytest.raises(UserError, match="a network of your own: pass an untrained copy of it as `net`"):
        byol.load_backbone(path)
    net = own_net()
    loaded = byol.load_backbone(path, net)
    assert loaded.net is net and loaded.hidden_layer == 2
    assert_same_network(loaded, saved)


def test_a_bundle_without_batch_statistics_comes_back(tmp_path: Path) -> None:
    """By name from its architecture; as a network of one's own, the copy with batch norms is changed."""
    named = build_backbone("resnet8_16", 16, normalization="group")
    net = own_net()
    own = Backbone(net, 16, hidden_layer=1, normalization="group")
    for name, backbone in (("named", named), ("own", own)):
        save_bundle(tmp_path / name, trained(backbone), ORIGIN)
        assert json.loads((tmp_path / name / "config.json").read_text())["normalization"] == "group"
        loaded = byol.load_backbone(tmp_path / name, own_net() if backbone is own else None)
        assert loaded.normalization == "group" and loaded.hidden_layer == backbone.hidden_layer
        assert loaded.net.state_dict().keys() == backbone.net.state_dict().keys()
        images = torch.rand(2, 3, 16, 16)
        assert torch.equal(loaded(images), backbone.eval()(images))
    assert isinstance(net[1], nn.GroupNorm)


def test_bundles_from_before_there_was_a_choice_of_normalisation(
    named: tuple[Path, Backbone], own: tuple[Path, Backbone]
) -> None:
    for path, saved in (named, own):
        config = json.loads((path / "config.json").read_text())
        assert config.pop("normalization") == "batch"
        if config["architecture"] is not None:
            assert config["architecture"].pop("normalization") == "batch"
        (path / "config.json").write_text(json.dumps(config))
        loaded = byol.load_backbone(path, None if config["architecture"] else own_net())
        assert_same_network(loaded, saved)


def without(state: dict[str, Tensor]) -> None:
    del state["1.running_var"]


def with_more(state: dict[str, Tensor]) -> None:
    state["1.more"] = torch.ones(1)


def reshaped(state: dict[str, Tensor]) -> None:
    state["0.weight"] = torch.ones(4, 3, 5, 5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without, r"missing: 1\.running_var"),
        (with_more, r"unexpected: 1\.more"),
        (reshaped, r"of another shape: 0\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_loaded(
    change: Callable[[dict[str, Tensor]], None], words: str, own: tuple[Path, Backbone]
) -> None:
    path, saved = own
    state = state_of(saved.net)
    change(state)
    save_file(state, path / "model.safetensors")
    net = own_net()
    before = state_of(net)
    with pytest.raises(UserError, match=words) as caught:
        byol.load_backbone(path, net)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run directory nor a bundle: no such folder"):
        byol.load_backbone(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"no model\.safetensors and config\.json there or in its model/"):
        byol.load_backbone(tmp_path)
    file = tmp_path / "file.txt"
    file.write_text("x")
    with pytest.raises(UserError, match="neither a run directory nor a bundle"):
        bundle_folder(file)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="neither"):
        bundle_folder(tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["ViTModel"], "image_size": 224}, "it lacks architecture, hidden_layer, channels"),
        ([], "it lacks architecture"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_models_of_other_tools_are_told(config: Any, words: str, named: tuple[Path, Backbone]) -> None:
    """Their two files bear the same names."""
    path, _ = named
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(UserError, match=words) as caught:
        byol.load_backbone(path)
    assert "\n" not in str(caught.value)
