"""From any layer's output to one vector per image."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from byol.core.backbone import Backbone, find_layer
from byol.core.pooling import pooled
from byol.errors import UserError


def test_maps_are_averaged_over_space_in_both_layouts() -> None:
    maps = torch.randn(2, 5, 4, 4)
    images = torch.zeros(2, 3, 32, 32)
    expected = torch.stack([maps[b].flatten(1).mean(1) for b in range(2)])
    torch.testing.assert_close(pooled(maps, images, nn.Identity()), expected)
    torch.testing.assert_close(pooled(maps.permute(0, 2, 3, 1), images, nn.Identity()), expected)


@pytest.mark.parametrize(
    ("image", "grid"),
    [((64, 96), (2, 3)), ((96, 64), (3, 2)), ((100, 60), (4, 2)), ((100, 60), (3, 1)), ((224, 160), (7, 5))],
)
@pytest.mark.parametrize("width", [16, 768])
def test_non_square_images_even_where_the_grid_was_rounded(
    image: tuple[int, int], grid: tuple[int, int], width: int
) -> None:
    maps = torch.randn(2, width, *grid)
    images = torch.zeros(2, 3, *image)
    expected = maps.mean((2, 3))
    torch.testing.assert_close(pooled(maps, images, nn.Identity()), expected)
    torch.testing.assert_close(pooled(maps.permute(0, 2, 3, 1), images, nn.Identity()), expected)


def test_one_cell_is_a_map_in_both_layouts() -> None:
    vectors, images = torch.randn(2, 5), torch.zeros(2, 3, 32, 32)
    assert torch.equal(pooled(vectors[:, :, None, None], images, nn.Identity()), vectors)
    assert torch.equal(pooled(vectors[:, None, None, :], images, nn.Identity()), vectors)


def test_tokens_are_averaged_without_the_class_token() -> None:
    tokens, images = torch.randn(2, 17, 6), torch.zeros(2, 3, 32, 32)
    torch.testing.assert_close(pooled(tokens, images, nn.Identity()), tokens[:, 1:].mean(1))
    patches = tokens[:, :16]
    torch.testing.assert_close(pooled(patches, images, nn.Identity()), patches.mean(1))


@pytest.mark.parametrize(
    ("tokens", "prefix"), [(1, 0), (2, 1), (4, 0), (5, 1), (6, 0), (8, 0), (9, 0), (10, 1), (12, 0), (16, 0)]
)
def test_a_token_before_a_square_of_patches_is_no_patch(tokens: int, prefix: int) -> None:
    output, images = torch.randn(2, tokens, 6), torch.zeros(2, 3, 32, 32)
    torch.testing.assert_close(pooled(output, images, nn.Identity()), output[:, prefix:].mean(1))


def test_the_network_says_how_many_tokens_are_no_patches() -> None:
    net = nn.Identity()
    net.num_prefix_tokens = 5
    tokens = torch.randn(2, 5 + 9, 6)
    torch.testing.assert_close(pooled(tokens, torch.zeros(2, 3, 48, 48), net), tokens[:, 5:].mean(1))


def test_vectors_stay() -> None:
    vectors = torch.randn(3, 7)
    assert torch.equal(pooled(vectors, torch.zeros(3, 1, 8, 8), nn.Identity()), vectors)


def test_a_torchvision_swin_by_its_channels_last_maps() -> None:
    net = torchvision.models.swin_t()
    backbone = Backbone(net, 64, hidden_layer="features").eval()
    images = torch.randn(2, 3, 64, 96)
    assert backbone.num_features == 768
    expected = net.features(images).mean((1, 2))  # [B,h,w,D]
    torch.testing.assert_close(backbone(images), expected)


@pytest.mark.parametrize("class_token", [True, False])
def test_a_timm_vit_by_its_blocks(class_token: bool) -> None:
    net = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=0,
        img_size=32,
        depth=1,
        class_token=class_token,
        global_pool="token" if class_token else "avg",
    )
    backbone = Backbone(net, 32, hidden_layer="blocks.0").eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = net.blocks[0](net.norm_pre(net._pos_embed(net.patch_embed(images))))
    assert tokens.shape[1] == (5 if class_token else 4)
    torch.testing.assert_close(backbone(images), tokens[:, 1 if class_token else 0 :].mean(1))


def test_a_torchvision_vit_by_its_encoder() -> None:
    net = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32)
    backbone = Backbone(net, 32, hidden_layer="encoder").eval()
    images = torch.randn(2, 3, 32, 32)
    tokens: list[Tensor] = []
    handle = net.encoder.register_forward_hook(lambda *arguments: tokens.append(arguments[2]))
    representation = backbone(images)
    handle.remove()
    torch.testing.assert_close(representation, tokens[0][:, 1:].mean(1))


def test_layers_by_name_index_and_none() -> None:
    net = torchvision.models.resnet18()
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)  # as backbones do
    by_name, by_index = (Backbone(net, 32, layer).eval() for layer in ("avgpool", -2))
    assert torch.equal(by_name(images), by_index(images))
    expected = nn.Sequential(*list(net.children())[:-1])(images).flatten(1)
    torch.testing.assert_close(by_name(images), expected)
    whole = Backbone(net, 32).eval()
    assert whole.num_features == 1000 and torch.equal(whole(images), net(images))
    assert find_layer(net, "layer1.0.conv1") is net.layer1[0].conv1
    assert find_layer(net, 0) is net.conv1


@pytest.mark.parametrize(
    ("make_net", "layer"),
    [(torchvision.models.efficientnet_b0, "avgpool"), (torchvision.models.densenet121, "features")],
)
def test_what_follows_the_layer_does_not_change_it(make_net: Callable[[], nn.Module], layer: str) -> None:
    """EfficientNet drops out the pooled vector in place, DenseNet cuts its map at zero in place."""
    net = make_net()
    backbone = Backbone(net, 32, layer)
    kept: list[Tensor] = []
    find_layer(net, layer).register_forward_hook(lambda *arguments: kept.append(arguments[2].clone()))
    representation = backbone(torch.randn(4, 3, 32, 32))
    torch.testing.assert_close(representation, kept[-1].mean((2, 3)))


def test_a_failed_forward_pass_leaves_nothing_behind() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 2))
    backbone = Backbone(net, 8, hidden_layer=0)
    with pytest.raises(RuntimeError):
        backbone(torch.randn(2, 3, 16, 16))
    assert backbone._hidden is not None
    assert backbone._hidden.output is None and not backbone._hidden.active


def test_an_unknown_layer_is_told_with_the_closest_name_and_the_candidates() -> None:
    with pytest.raises(UserError, match=r"no layer 'avgpol'\. Did you mean 'avgpool'\?") as caught:
        Backbone(torchvision.models.resnet18(), 32, "avgpol")
    assert "conv1, bn1, relu, maxpool, layer1, layer2, layer3, layer4, avgpool, fc" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"Did you mean 'layer4\.1\.conv2'\?"):
        find_layer(torchvision.models.resnet18(), "layer4.1.conv22")
    with pytest.raises(UserError, match="no layer ''"):
        find_layer(torchvision.models.resnet18(), "")


@pytest.mark.parametrize("index", [10, -11, 100])
def test_an_index_out_of_range_is_told_with_the_number_of_children(index: int) -> None:
    with pytest.raises(UserError, match=f"hidden layer {index}: the network has 10 children"):
        Backbone(torchvision.models.resnet18(), 32, index)


class Odd(nn.Module):
    """Layers that BYOL cannot use: one is never reached, one returns a tuple, one fails wordlessly."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.recurrent = nn.LSTM(6, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.convolution(images)
        if maps.shape[-1] != 6:
            raise AssertionError
        return {"sequence": self.recurrent(maps.mean(1))[0]}


@pytest.mark.parametrize(
    ("layer", "size", "words"),
    [
        ("unused", 8, "hidden layer 'unused' was not reached"),
        ("recurrent", 8, "hidden layer 'recurrent' gives a tuple"),
        (None, 8, "the network gives a dict"),
        ("convolution", 10, "cannot take 3 x 10 x 10 images .*AssertionError"),
    ],
)
def test_layers_that_cannot_be_used(layer: str | None, size: int, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        Backbone(Odd(), size, layer)
    assert "\n" not in str(caught.value)


def test_a_scalar_per_image_is_a_width_of_one() -> None:
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Flatten(0)), 8, channels=3)
    assert backbone.num_features == 1
    assert backbone(torch.zeros(4, 3, 8, 8)).shape == (4, 1)
