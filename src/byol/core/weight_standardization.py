"""Weight standardisation (arXiv 1903.10520): layers that use zero-mean, unit-variance weights."""

import torch.nn.functional as F
from torch import Tensor, nn

# Small against the variance of any usual weights, about 1 / fan-in.
_EPS = 1e-8


def standardized(weight: Tensor) -> Tensor:
    """Return (w - mean) / sqrt(var + 1e-8), mean and variance being those of each output's own weights.

    Args:
        weight: [outputs, ...] of a convolution or a linear layer.
    """
    return F.layer_norm(weight, weight.shape[1:], eps=_EPS)


class StandardizedConv2d(nn.Conv2d):
    """A convolution with standardised weights; what is stored and trained are the plain ones."""

    def forward(self, input: Tensor) -> Tensor:
        """Return maps [B,D,h,w] of maps [B,C,H,W]."""
        return self._conv_forward(input, standardized(self.weight), self.bias)


class StandardizedLinear(nn.Linear):
    """A linear layer with standardised weights; what is stored and trained are the plain ones."""

    def forward(self, input: Tensor) -> Tensor:
        """Return vectors [...,D] of vectors [...,C]."""
        return F.linear(input, standardized(self.weight), self.bias)


_STANDARDIZED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: StandardizedConv2d,
    nn.Linear: StandardizedLinear,
}


def standardize_weights(layer: nn.Module) -> None:
    """Let a layer standardise its weights from now on; it stays the same object with the same parameters.

    Convolutions and linear layers of torch do; any other layer stays as it is.
    """
    kind = _STANDARDIZED.get(type(layer))
    if kind is not None:
        layer.__class__ = kind
