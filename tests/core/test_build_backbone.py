"""Backbones by name: any timm name, and the small ResNets."""

import pytest
import torch
from torch import nn

from byol.core.backbone import Backbone
from byol.core.named_backbone import CIFAR_RESNETS, build_backbone
from byol.errors import UserError

WIDTHS = {
    "resnet18": 512,
    "resnet50": 2048,
    "resnet8_24": 96,
    "convnext_atto": 320,
    "vit_tiny_patch16_224": 192,
    "swin_tiny_patch4_window7_224": 768,
}


def stem_of(backbone: Backbone) -> str | None:
    assert backbone.architecture is not None
    stem: str | None = backbone.architecture["stem"]
    return stem


def first_convolution(net: nn.Module) -> nn.Conv2d:
    return next(module for module in net.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", WIDTHS)
def test_every_family_at_small_sizes(name: str, size: int) -> None:
    backbone = build_backbone(name, size, channels=1)
    is_resnet = name.startswith("resnet")
    stem = "small" if is_resnet else None
    assert backbone.architecture == {
        "name": name,
        "image_size": size,
        "channels": 1,
        "stem": stem,
        "normalization": "batch",
    }
    assert backbone.num_features == WIDTHS[name] and backbone.channels == 1 and not backbone.unreached
    assert backbone.training and backbone.eval()(torch.rand(2, 1, size, size)).shape == (2, WIDTHS[name])
    first = first_convolution(backbone.net)
    assert first.in_channels == 1
    if is_resnet:
        assert first.kernel_size == (3, 3) and first.stride == (1, 1)
        assert not any(isinstance(module, nn.MaxPool2d) for module in backbone.net.modules())


@pytest.mark.parametrize("name", ["resnet18", "resnet8_24", "vit_tiny_patch16_224"])
def test_its_record_makes_the_same_network_again(name: str) -> None:
    first = build_backbone(name, 32, channels=1)
    assert first.architecture is not None
    second = build_backbone(**first.architecture)
    assert second.architecture == first.architecture
    shapes, same = ({n: t.shape for n, t in b.net.state_dict().items()} for b in (first, second))
    assert shapes == same
    second.net.load_state_dict(first.net.state_dict())
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(first.eval()(images), second.eval()(images))


@pytest.mark.parametrize(
    ("stem", "size", "kernel", "stride", "side"),
    [
        ("small", 32, 3, 1, 4),
        ("strided", 32, 3, 2, 2),
        ("standard", 32, 7, 2, 1),
        (None, 111, 3, 1, 14),
        (None, 112, 7, 2, 4),
    ],
)
def test_stems(stem: str | None, size: int, kernel: int, stride: int, side: int) -> None:
    backbone = build_backbone("resnet18", size, stem=stem)
    first = first_convolution(backbone.net)
    assert first.kernel_size == (kernel, kernel) and first.stride == (stride, stride)
    assert backbone.net.forward_features(torch.rand(2, 3, size, size)).shape[-1] == side
    assert stem_of(backbone) == (stem or ("small" if size < 112 else "standard"))


@pytest.mark.parametrize("name", CIFAR_RESNETS)
def test_small_resnets_have_the_layers_of_their_name(name: str) -> None:
    """6n + 2 layers (He et al. 2015, section 4.2): the last one would classify; shortcuts do not count."""
    backbone = build_backbone(name, 16)
    depth, width = (int(number) for number in name.removeprefix("resnet").split("_"))
    convolutions = [
        module
        for path, module in backbone.net.named_modules()
        if isinstance(module, nn.Conv2d) and "downsample" not in path
    ]
    assert len(convolutions) == depth - 1
    assert backbone.num_features == 4 * width == convolutions[-1].out_channels


@pytest.mark.parametrize("name", ["resnet18d", "seresnet18", "resnet10t"])
def test_relatives_of_resnet_have_the_small_stem_too(name: str) -> None:
    backbone = build_backbone(name, 32)
    assert stem_of(backbone) == "small"
    assert backbone.net.forward_features(torch.rand(2, 3, 32, 32)).shape[-2:] == (4, 4)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnetv2_18"])
def test_other_networks_keep_their_own_stem(name: str) -> None:
    assert stem_of(build_backbone(name, 64)) is None
    with pytest.raises(UserError, match=f"stem 'small' is for ResNets: {name} has a stem of its own"):
        build_backbone(name, 64, stem="small")


def test_small_resnets_have_no_standard_stem() -> None:
    with pytest.raises(UserError, match="resnet8_24 takes small or strided"):
        build_backbone("resnet8_24", 32, stem="standard")


@pytest.mark.parametrize(("size", "stem"), [(111, "small"), (112, "strided")])
def test_small_resnets_stride_over_large_images(size: int, stem: str) -> None:
    """Four times the work otherwise: more than a ResNet-18 takes, whose stem is a sixteenth of its image."""
    assert stem_of(build_backbone("resnet8_24", size)) == stem


def test_unknown_names_are_told_with_the_closest() -> None:
    with pytest.raises(UserError, match=r"unknown backbone 'resnet19'.* Did you mean 'resnet1?8'"):
        build_backbone("resnet19", 32)
    with pytest.raises(UserError, match="Did you mean 'resnet8_24'") as caught:
        build_backbone("resnet8-24", 32)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"unknown stem 'smal'.* Did you mean 'small'"):
        build_backbone("resnet18", 32, stem="smal")


@pytest.mark.parametrize(("name", "size"), [("vit_tiny_patch16_224", 8), ("inception_v4", 32), ("vgg11", 0)])
def test_an_impossible_size_is_one_line(name: str, size: int) -> None:
    with pytest.raises(UserError, match=f"cannot take .*{size}") as caught:
        build_backbone(name, size)
    assert "\n" not in str(caught.value)
