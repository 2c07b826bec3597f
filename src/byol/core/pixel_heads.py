"""Heads of the pixel learners: perceptrons at each place of a map, and pixel propagation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from byol.errors import UserError


def pixel_projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return 1x1 convolution - BN - ReLU - 1x1 convolution, with biases (official `pixpro.py`, `MLP2d`)."""
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, outputs, 1),
    )


class PixelPropagation(nn.Module):
    """Replace each place's vector by a sum over the whole map, weighted by similarity (PixPro, section 3.2).

    y_i = sum over j of max(cos(x_i, x_j), 0)^gamma g(x_j), where g is a transformation at each place, scaled
    to length 1: the paper does not say so, the code of its numbers does (`PixPro.py`, `featprop`).

    Args:
        width: channels D of the map.
        layers: of g: 0 is none, 1 a 1x1 convolution, 2 a perceptron of hidden width D.
        gamma: sharpness, at least 1; the paper's is 2.

    Raises:
        UserError: one of the two is out of its range.
    """

    def __init__(self, width: int, layers: int = 1, gamma: float = 2.0) -> None:
        super().__init__()
        if gamma < 1:
            raise UserError(f"the propagation's gamma is {gamma}, it must be at least 1")
        self.gamma = gamma
        self.transform = _transform(width, layers)

    def forward(self, feature_map: Tensor) -> Tensor:
        """Return a map [B,D,h,w] of a map [B,D,h,w]; the sum is computed in float32 at least."""
        values = self.transform(feature_map)  # [B,D,h,w]
        precise = torch.promote_types(feature_map.dtype, torch.float32)
        with torch.autocast(feature_map.device.type, enabled=False):
            cells = F.normalize(feature_map.to(precise).flatten(2), dim=1)  # [B,D,N]
            weights = torch.bmm(cells.transpose(1, 2), cells).clamp(min=0) ** self.gamma  # [B,N,N]
            values = F.normalize(values.to(precise).flatten(2), dim=1)  # [B,D,N]
            propagated = torch.bmm(values, weights)  # [B,D,N]
        return propagated.unflatten(2, feature_map.shape[2:])  # [B,D,h,w]


def _transform(width: int, layers: int) -> nn.Module:
    if layers == 0:
        return nn.Identity()
    if layers == 1:
        return nn.Conv2d(width, width, 1)
    if layers == 2:
        return pixel_projector(width, width, width)
    raise UserError(f"the propagation has 0, 1 or 2 layers, not {layers}")
