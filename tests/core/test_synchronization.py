"""Synchronised batch norms compute what the ones before them did, statistics aside."""

import pytest
import timm
import torch
from torch import nn

from byol.core.processes import synchronize_batch_norms


@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "mobilenetv3_small_050", "efficientnet_b0"])
def test_activations_inside_norms_survive(name: str) -> None:
    """torch's own conversion makes plain norms of timm's norms with activations."""
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # not the identity
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = net(images)
        names = list(net.state_dict())
        synchronize_batch_norms(net)
        torch.testing.assert_close(net(images), expected)
    assert list(net.state_dict()) == names
    kinds = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert kinds and all(isinstance(module, nn.SyncBatchNorm) for module in kinds)


def test_synchronised_norms_are_left_alone() -> None:
    """timm's conversion of what it has converted makes plain norms of norms with activations."""
    from timm.layers.norm_act import BatchNormAct2d

    net = nn.Sequential(nn.Identity(), BatchNormAct2d(2)).eval()
    for _ in range(2):
        synchronize_batch_norms(net)
        assert isinstance(net[1], nn.SyncBatchNorm)
        assert not net(torch.full((1, 2, 1, 1), -1.0)).any()
    synchronised = net[1]
    synchronize_batch_norms(net)
    assert net[1] is synchronised, "its process group may be the user's"
