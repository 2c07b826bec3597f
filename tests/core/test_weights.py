"""Weights files: read without running code, loaded exactly or not at all, also those of others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from byol.core.named_backbone import build_backbone
from byol.errors import UserError
from byol.weights import load_exactly, load_plain, read_weights

MakeNet = Callable[..., nn.Sequential]


def state_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def used(net: nn.Module) -> nn.Module:
    """Give a network running statistics that no constructor gives."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.eval()


def assert_refused(net: nn.Module, state: dict[str, Tensor], *words: str) -> None:
    before = state_of(net)
    with pytest.raises(UserError) as caught:
        load_plain(net, state, "x.pt")
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_torchvision_s_resnet_gives_torchvision_s_features() -> None:
    theirs = used(torchvision.models.resnet18())
    backbone = build_backbone("resnet18", 64, stem="standard")
    line = load_plain(backbone.net, theirs.state_dict(), "x.pt")
    assert line == "left out the classifier in x.pt: fc.weight, fc.bias"
    theirs.fc = nn.Identity()
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval()(images), theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "classifier"),
    [
        ("vit_tiny_patch16_224", "head.weight, head.bias"),
        ("deit_tiny_distilled_patch16_224", "head.weight, head.bias, head_dist.weight, head_dist.bias"),
        ("convnext_atto", "head.fc.weight, head.fc.bias"),  # and head.norm stays
    ],
)
def test_timm_s_classifier_is_left_out_by_its_name(name: str, classifier: str) -> None:
    settings = {} if name.startswith("convnext") else {"img_size": 32}
    theirs = timm.create_model(name, **settings).eval()
    backbone = build_backbone(name, 32)
    line = load_plain(backbone.net, theirs.state_dict(), "x.pt")
    assert line == f"left out the classifier in x.pt: {classifier}"
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone.eval()(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "net.", "encoder.", "module.encoder."])
def test_a_wrapper_s_prefix_is_taken_off(prefix: str) -> None:
    theirs = torchvision.models.resnet18()
    state = {prefix + name: tensor for name, tensor in theirs.state_dict().items()}
    backbone = build_backbone("resnet18", 64, stem="standard")
    assert "fc.bias" in load_plain(backbone.net, state, "x.pt")
    assert torch.equal(backbone.net.layer4[1].bn2.weight, theirs.layer4[1].bn2.weight)
    more = {**state, "projector.0.weight": torch.ones(1)}  # then it may mean something
    assert_refused(backbone.net, more, f"unexpected: {prefix}conv1.weight", "missing: conv1.weight")


def test_a_prefix_of_the_network_s_own_stays(make_net: MakeNet) -> None:
    own, other = (nn.ModuleDict({"net": make_net()}) for _ in range(2))
    assert load_plain(own, other.state_dict(), "x.pt") == ""
    assert torch.equal(own["net"][0].weight, other["net"][0].weight)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded() -> None:
    resnet = torchvision.models.resnet18().state_dict()
    net = build_backbone("resnet18", 64, stem="standard").net
    assert_refused(net, {**resnet, "projector.0.weight": torch.ones(1)}, "unexpected: projector.0.weight)")
    lacking = {name: tensor for name, tensor in resnet.items() if name != "bn1.running_var"}
    assert_refused(net, lacking, "missing: bn1.running_var)")
    deeper = torchvision.models.resnet34().state_dict()
    blocks = ("layer1.2", "layer2.2", "layer2.3", *(f"layer3.{n}" for n in (2, 3, 4, 5)), "layer4.2")
    assert_refused(net, deeper, f"(unexpected: {', '.join(f'{block}.* (12)' for block in blocks)})")
    grey = build_backbone("resnet18", 64, channels=1, stem="standard").net
    words = "of another shape: conv1.weight (64x3x7x7, the backbone's is 64x1x7x7)"
    assert_refused(grey, resnet, words)
    small = build_backbone("resnet18", 32).net
    assert_refused(small, resnet, "conv1.weight (64x3x7x7, the backbone's is 64x3x3x3)")


def test_a_classifier_that_the_network_has_is_loaded() -> None:
    own, other = timm.create_model("test_resnet"), timm.create_model("test_resnet")
    assert load_plain(own, other.state_dict(), "x.pt") == ""
    assert torch.equal(own.fc.weight, other.fc.weight)


def test_a_network_without_a_known_classifier_takes_all_or_nothing(make_net: MakeNet) -> None:
    state = make_net().state_dict()
    assert load_plain(make_net(), state, "x.pt") == ""
    assert_refused(make_net(), {**state, "fc.weight": torch.ones(1)}, "unexpected: fc.weight")


def test_all_problems_are_told_at_once() -> None:
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    with pytest.raises(UserError) as caught:
        load_exactly(net, {"0.weight": torch.ones(3, 2), "more": torch.ones(1)}, "x.pt")
    words = str(caught.value)
    assert "missing: 0.bias, 1.weight, 1.bias, 2.weight, 2.bias, 3.weight, 3.bias; " in words
    assert "unexpected: more" in words and "of another shape: 0.weight" in words


def names_of(error: str, kind: str, candidates: set[str]) -> list[str]:
    """Return the names that a message tells of, each group written out, after counting them."""
    found: list[str] = []
    for entry in error.split(f"{kind}: ")[1].split(";")[0].rstrip(")").split(", "):
        module, group, count = entry.partition(".* (")
        members = [name for name in candidates if name.startswith(f"{module}.")] if group else [entry]
        assert not group or len(members) == int(count.rstrip(")")), entry
        found += members
    return found


@pytest.mark.parametrize("prefix", ["", "online.trunk."])
def test_however_many_do_not_fit_every_name_is_told(prefix: str) -> None:
    """A torchvision ResNet lacks two stages, has another network's beside it, and none of it is loaded."""
    state = torchvision.models.resnet18().state_dict()
    for name in ("fc.weight", "fc.bias"):
        del state[name]
    lacking = {name: tensor for name, tensor in state.items() if not name.startswith(("layer2", "layer3"))}
    extra = {f"{prefix}{name}": tensor for name, tensor in torchvision.models.vgg11_bn().state_dict().items()}
    extra = {name: tensor for name, tensor in extra.items() if name not in state}
    net = build_backbone("resnet18", 64, stem="standard").net
    before = state_of(net)
    with pytest.raises(UserError) as caught:
        load_plain(net, {**lacking, **extra}, "x.pt")
    told, hint = str(caught.value).split(": is it another ")
    assert hint == "--backbone, --stem, --channels or --image-size?"
    missing = state.keys() - lacking.keys()
    assert len(missing) == 60 and sorted(names_of(told, "missing", missing)) == sorted(missing)
    assert sorted(names_of(told, "unexpected", set(extra))) == sorted(extra)
    assert "\n" not in told and len(told) < 400, told
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_weights_are_read_in_both_formats(make_net: MakeNet, tmp_path: Path) -> None:
    state = state_of(make_net())
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save(make_net().state_dict(), tmp_path / "c.pth")
    for name in ("a.safetensors", "b.pt"):
        read = read_weights(tmp_path / name)
        assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in state)
    assert read_weights(tmp_path / "c.pth").keys() == state.keys()


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_are_found_one_level_down(key: str, make_net: MakeNet, tmp_path: Path) -> None:
    state = state_of(make_net())
    torch.save({"epoch": 3, key: state, "optimizer": {"lr": 0.1}}, tmp_path / "checkpoint.pt")
    read = read_weights(tmp_path / "checkpoint.pt")
    assert read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state)


def test_a_pickled_network_is_refused_with_what_to_save_instead(make_net: MakeNet, tmp_path: Path) -> None:
    torch.save(make_net(), tmp_path / "module.pt")
    torch.save({"state_dict": make_net().state_dict(), "args": Path("x")}, tmp_path / "objects.pt")
    for name in ("module.pt", "objects.pt"):
        words = r"Python objects.* save it again with torch\.save\(net\.state_dict\(\)"
        with pytest.raises(UserError, match=words) as caught:
            read_weights(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_a_gpu_are_read_without_one(
    make_net: MakeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, state = tmp_path / "weights.pt", make_net().state_dict()
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save(state, file)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(file)
    found = read_weights(file)
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_unreadable_weights_are_told_in_one_line(make_net: MakeNet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file with weights"):
        read_weights(tmp_path / "missing.pt")
    contents = {
        "text.pt": b"hello world\n",
        "table.pt": b"a,b\n1,2\n",
        "empty.pt": b"",
        "zeros.pt": bytes(64),
        "code.pt": b"cos\nsystem\n(S'true'\ntR.",
        "text.safetensors": b"hello world\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"weights": make_net().state_dict()}, tmp_path / "nested.pt")
    torch.save({"model": {"model": make_net().state_dict()}}, tmp_path / "deep.pt")
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    for name in [*contents, "nested.pt", "deep.pt", "tensor.pt"]:
        with pytest.raises(UserError, match="holds no state dict") as caught:
            read_weights(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
