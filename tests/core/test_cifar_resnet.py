"""The small residual networks against the paper's table."""

import pytest
import torch

from byol.core.cifar_resnet import CIFAR_RESNETS, CifarResNet
from byol.core.named_backbone import build_backbone


def test_resnet20_has_the_papers_layers_and_parameters() -> None:
    """He et al. 2015, table 6: 20 layers, 0.27 million parameters (650 of them the classifier's)."""
    net = CifarResNet(3, 16)
    kernels = [layer.kernel_size for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert kernels.count((3, 3)) == 19
    assert sum(parameter.numel() for parameter in net.parameters()) + 650 == pytest.approx(0.27e6, rel=0.02)


@pytest.mark.parametrize("name", CIFAR_RESNETS)
def test_stages_halve_the_side_and_double_the_width(name: str) -> None:
    blocks, width = CIFAR_RESNETS[name]
    net = CifarResNet(blocks, width, channels=1).eval()
    first = net.layer1(net.relu(net.bn1(net.conv1(torch.rand(2, 1, 16, 16)))))
    assert first.shape == (2, width, 16, 16)
    second = net.layer2(first)
    assert second.shape == (2, 2 * width, 8, 8)
    assert net.layer3(second).shape == (2, 4 * width, 4, 4)
    assert all(len(stage) == blocks for stage in (net.layer1, net.layer2, net.layer3))


def test_strided_stem_halves_the_side() -> None:
    backbone = build_backbone("resnet8_16", 32, stem="strided")
    assert backbone.num_features == 64
    assert backbone.net.conv1.stride == (2, 2) and backbone.net.conv1.kernel_size == (3, 3)


def test_convolutions_start_as_he_et_al_start_them() -> None:
    """Normal with a variance of 2 / (outputs x kernel), arXiv 1502.01852; torch's own is a sixth of that."""
    torch.manual_seed(0)
    convolutions = [m for m in CifarResNet(1, 32).modules() if isinstance(m, torch.nn.Conv2d)]
    for convolution in convolutions[1:]:  # the first has few weights
        weight = convolution.weight.detach()
        assert float(weight.std()) == pytest.approx((2 / weight[:, 0].numel()) ** 0.5, rel=0.06)
