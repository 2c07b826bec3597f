"""The layout of images and weights: as convolutions like them, where the user's own network can take that."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import byol
from byol.core.backbone import Backbone, lay_out


class Viewing(nn.Module):
    """Flattens its maps with `view`, as textbooks do: strides of channels-last maps do not allow that."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(8 * 4 * 4, 16)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.norm(self.second(self.first(images))).relu()
        vectors: Tensor = self.last(maps.view(len(maps), -1))
        return vectors


def is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def seen_by(net: nn.Module, backbone: Backbone, images: Tensor) -> list[Tensor]:
    """Return the images that `net` is given where its backbone is."""
    seen: list[Tensor] = []
    hook = net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone(images)
    hook.remove()
    return seen


def test_convolutions_see_channels_last() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    backbone = Backbone(net, 8)
    assert backbone.takes_channels_last
    images = torch.rand(2, 3, 8, 8)
    (seen,) = seen_by(net, backbone, images)
    assert is_channels_last(seen) and torch.equal(seen, images)
    lay_out(backbone)
    assert is_channels_last(net[0].weight)


def test_a_network_that_cannot_view_them_sees_contiguous_images() -> None:
    net = Viewing()
    backbone = Backbone(net, 8)
    assert not backbone.takes_channels_last and backbone.num_features == 16
    laid_out = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    (seen,) = seen_by(net, backbone, laid_out)
    assert seen.is_contiguous() and torch.equal(seen, laid_out)
    lay_out(nn.Sequential(backbone, nn.Linear(16, 2)))
    assert net.second.weight.is_contiguous()


def test_images_of_one_channel_do_not_tell_but_weights_do() -> None:
    backbone = Backbone(Viewing(channels=1), 8)
    lay_out(backbone)
    assert not backbone.takes_channels_last and backbone.net.second.weight.is_contiguous()
    assert copy.deepcopy(backbone)(torch.rand(2, 1, 8, 8)).shape == (2, 16)


@pytest.mark.parametrize("channels", [1, 3])
def test_such_a_network_is_trained_and_evaluated(channels: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (96, channels, 8, 8), dtype=torch.uint8, generator=generator)
    data = TensorDataset(images, torch.arange(96) % 3)
    settings: dict[str, Any] = {"epochs": "2st", "batch_size": 32, "logger": "none", "preset": "small"}
    sizes: dict[str, Any] = {"projection_size": 8, "projection_hidden_size": 16}
    run = byol.pretrain(data, backbone=Viewing(channels), out=str(tmp_path / "run"), **settings, **sizes)
    tuning: dict[str, Any] = {"finetune_rates": "0.1", "finetune_epochs": "1", "device": "cpu"}
    protocol = {"protocol": "knn,finetune"}
    found = byol.evaluate(run.path, data=data, net=Viewing(channels), **protocol, **tuning)
    assert {result.protocol for result in found} == {"knn", "finetune"}
