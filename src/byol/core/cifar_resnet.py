"""The small residual networks of He et al. 2015 (arXiv 1512.03385, section 4.2), for small images."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

# Name: blocks per stage n, and width of the first stage; 6n+2 layers. The paper's width is 16.
CIFAR_RESNETS = {
    "resnet8_16": (1, 16),
    "resnet8_24": (1, 24),
    "resnet8_32": (1, 32),
    "resnet8_64": (1, 64),
    "resnet14_32": (2, 32),
    "resnet20_16": (3, 16),
}


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of basic blocks, each half the side of the one before, global mean.

    Where the shape changes, the shortcut is a 1x1 convolution with batch normalisation (option B).

    Args:
        blocks: per stage, n.
        width: channels of the first stage; the others have twice and four times as many.
        channels: of the images.
    """

    def __init__(self, blocks: int, width: int, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return representations [B,4 x width] of images [B,C,H,W]."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))  # [B,D,h,w]
        pooled: Tensor = features.mean(dim=(2, 3))  # [B,D]
        return pooled


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or inputs != outputs:
        convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
    rest = [BasicBlock(outputs, outputs) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), *rest)
