"""The networks that all libraries train, of what every environment has, and where they compute."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network(name: str, size: int) -> tuple[nn.Module, int]:
    """Return a ResNet without classifier, on small images with the stem for them, and its width."""
    if name.startswith("resnet8_"):
        width = int(name.removeprefix("resnet8_"))
        return resnet8(width).to(DEVICE), 4 * width
    net = {"resnet18": resnet18, "resnet50": resnet50}[name]()
    features: int = net.fc.in_features
    net.fc = nn.Identity()
    if size < 112:
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
    return net.to(DEVICE), features


def resnet8(width: int) -> nn.Sequential:
    """Return the network of the recipe `cifar10-cpu`: three blocks behind a convolution of stride 2."""
    shapes = ((width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2))
    stem = (nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    blocks = (BasicBlock(*shape, shortcut(*shape)) for shape in shapes)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """Return the way around a block: the identity (None) where the shape stays."""
    if inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def precise(name: str) -> AbstractContextManager[None]:
    """Return the context of the forward passes."""
    return torch.autocast(DEVICE.type, torch.bfloat16) if name == "bf16" else nullcontext()
