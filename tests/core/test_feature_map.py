"""`Backbone.feature_map`: the last map of any kind of network, channels first."""

import copy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from byol.augment.evaluation import preprocess_for
from byol.bundle import load_backbone, save_bundle
from byol.core.backbone import Backbone
from byol.core.named_backbone import build_backbone
from byol.core.pixel_learner import PixelCL
from byol.core.processes import synchronize_batch_norms
from byol.errors import UserError

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
IMAGES = IMAGES.contiguous(memory_format=torch.channels_last)  # as backbones lay them out


def forward_features(net: nn.Module, images: Tensor) -> Tensor:
    """Return what timm itself calls the features."""
    features: Tensor = net.forward_features(images)  # type: ignore[operator]
    return features


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (512, 8, 8)),  # the small stem below 112 pixels
        ("resnet8_16", (64, 16, 16)),
        ("convnext_atto", (320, 2, 2)),
        ("swin_tiny_patch4_window7_224", (768, 2, 2)),
        ("vit_tiny_patch16_224", (192, 4, 4)),
        ("efficientnet_b0", (1280, 2, 2)),
    ],
)
def test_networks_by_name(name: str, shape: tuple[int, int, int]) -> None:
    backbone = build_backbone(name, 64).eval()
    found = backbone.feature_map(IMAGES)
    assert found.shape == (2, *shape)
    if hasattr(backbone.net, "forward_features"):
        expected = forward_features(backbone.net, IMAGES)
        if name.startswith("swin"):
            expected = expected.permute(0, 3, 1, 2)
        if name.startswith("vit"):  # token by token: row after row of patches, behind the class token
            expected = torch.stack([expected[:, 1 + 4 * row : 5 + 4 * row] for row in range(4)], 1)
            expected = expected.permute(0, 3, 1, 2)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "swin_tiny_patch4_window7_224", "test_vit"])
def test_a_loaded_bundle_gives_the_same_map(name: str, tmp_path: Path) -> None:
    backbone = build_backbone(name, 64)
    backbone.preprocess = preprocess_for("small", 64, 3)
    save_bundle(tmp_path, backbone, {})
    assert torch.equal(load_backbone(tmp_path).feature_map(IMAGES), backbone.eval().feature_map(IMAGES))


def test_a_bundle_gives_the_map_of_a_network_of_one_s_own(tmp_path: Path) -> None:
    resnet = torchvision.models.resnet18().eval()
    backbone = Backbone(resnet, 64, "avgpool", preprocess=preprocess_for("small", 64, 3)).eval()
    save_bundle(tmp_path, backbone, {})
    found = load_backbone(tmp_path, net=torchvision.models.resnet18()).feature_map(IMAGES)
    assert torch.equal(found, nn.Sequential(*list(resnet.children())[:-2])(IMAGES))


def test_torchvision_networks() -> None:
    resnet = torchvision.models.resnet18().eval()
    images = torch.rand(2, 3, 96, 64).contiguous(memory_format=torch.channels_last)  # not square
    expected = nn.Sequential(*list(resnet.children())[:-2])(images)
    assert torch.equal(Backbone(resnet, 64, "avgpool").eval().feature_map(images), expected)
    swin = torchvision.models.swin_t().eval()
    expected = swin.permute(swin.norm(swin.features(images)))
    assert torch.equal(Backbone(swin, 64).eval().feature_map(images), expected)
    convnext = torchvision.models.convnext_tiny().eval()
    assert torch.equal(Backbone(convnext, 64).eval().feature_map(images), convnext.features(images))
    vit = torchvision.models.VisionTransformer(64, 16, 1, 2, 32, 64).eval()
    found = Backbone(vit, 64).eval().feature_map(IMAGES)
    assert found.shape == (2, 32, 4, 4)


def test_a_fully_convolutional_network_is_its_own_map() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1))
    backbone = Backbone(net, 64)
    assert torch.equal(backbone.feature_map(IMAGES), net(IMAGES))
    assert torch.allclose(backbone(IMAGES), net(IMAGES).mean((2, 3)))


def test_layer_by_name_and_one_pass_for_both() -> None:
    backbone = build_backbone("resnet8_16", 64)
    passes = []
    chosen = Backbone(backbone.net, 64, feature_layer="layer2").eval()
    chosen.net.register_forward_hook(lambda *_: passes.append(1))
    found, representation = chosen.map_and_representation(IMAGES)
    assert passes == [1] and found.shape == (2, 32, 32, 32)
    assert torch.equal(representation, chosen(IMAGES))
    assert torch.equal(found, chosen.feature_map(IMAGES))


def test_finding_the_layer_changes_nothing() -> None:
    backbone = build_backbone("resnet8_16", 32)
    backbone.train()
    before = copy.deepcopy(backbone.state_dict())
    backbone.prepare_feature_map()
    assert backbone.training and all(
        torch.equal(before[name], v) for name, v in backbone.state_dict().items()
    )
    assert all(hook is backbone._features for hook in backbone.net.layer3._forward_hooks.values())  # type: ignore[union-attr]


def test_a_copy_has_its_own() -> None:
    backbone = build_backbone("resnet8_16", 32)
    backbone.prepare_feature_map()
    other = copy.deepcopy(backbone).eval()
    with torch.no_grad():
        other.net.conv1.weight.zero_()  # type: ignore[operator, union-attr]
    assert not torch.equal(other.feature_map(IMAGES), backbone.eval().feature_map(IMAGES))


def test_layers_that_are_no_maps() -> None:
    resnet = torchvision.models.resnet18()
    with pytest.raises(UserError, match=r"hidden layer 'fc' gives no map but \[2, 1000\]: choose"):
        Backbone(resnet, 64, "avgpool", feature_layer="fc")
    with pytest.raises(UserError, match="no layer 'layer5'"):
        Backbone(resnet, 64, "avgpool", feature_layer="layer5")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 8))
    with pytest.raises(UserError, match="no layer of the network gives a map of more than one place"):
        Backbone(flat, 8, 0).feature_map(torch.rand(2, 3, 8, 8))


def test_prefix_tokens_of_timm_are_left_out() -> None:
    net = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=0, img_size=64).eval()
    found = Backbone(net, 64).eval().feature_map(IMAGES)
    assert torch.equal(found[:, :, 0, 1], forward_features(net, IMAGES)[:, 3])


def test_a_batch_norm_whose_output_is_the_map_may_be_synchronised() -> None:
    """It is another module then."""
    backbone = Backbone(timm.create_model("test_efficientnet", num_classes=0), 64).eval()
    expected = backbone.feature_map(IMAGES)
    synchronize_batch_norms(backbone)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in backbone.modules())
    assert torch.equal(backbone.feature_map(IMAGES), expected)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_a_pixel_learner_s_representations_are_the_backbone_s(name: str) -> None:
    """Of a class token, or normalised after pooling: not the mean of the map."""
    net = timm.create_model(name, num_classes=0, img_size=64) if name == "test_vit" else None
    net = net or timm.create_model(name, num_classes=0)
    learner = PixelCL(net, 64, None, None, 8, 16, alpha=0.0).eval()
    found = learner.online(IMAGES)
    torch.testing.assert_close(found.representation, learner.backbone(IMAGES))
    assert not torch.allclose(
        found.representation, learner.backbone.feature_map(IMAGES).mean((2, 3)), atol=0.1
    )
