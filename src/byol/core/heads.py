"""Projector and predictor: perceptrons of two or three layers."""

from torch import Tensor, nn

BYOL_WIDTHS = (256, 4096)
"""Of projections and of hidden layers (section 3.2)."""
SIMSIAM_WIDTHS = (2048, 2048)
"""The same (arXiv 2011.10566, section 3)."""


class Perceptron(nn.Sequential):
    """Layers one after the other. Its forward is our own: torch 2.11 compiles no plain `nn.Sequential`."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Return what the last layer makes of vectors [B,D]."""
        for layer in self:
            vectors = layer(vectors)
        return vectors


def byol_heads(inputs: int, outputs: int | None, hidden: int | None) -> tuple[nn.Sequential, nn.Sequential]:
    """Return BYOL's projector and predictor; None: 256 outputs, hidden width 4096."""
    outputs, hidden = outputs or BYOL_WIDTHS[0], hidden or BYOL_WIDTHS[1]
    return mlp(inputs, hidden, outputs), mlp(outputs, hidden, outputs)


def simsiam_heads(
    inputs: int, outputs: int | None, hidden: int | None
) -> tuple[nn.Sequential, nn.Sequential]:
    """Return SimSiam's projector and predictor; None: 2048 outputs, hidden width 2048.

    The predictor's hidden width is a quarter of it.
    """
    outputs, hidden = outputs or SIMSIAM_WIDTHS[0], hidden or SIMSIAM_WIDTHS[1]
    return simsiam_projector(inputs, hidden, outputs), simsiam_predictor(outputs, hidden // 4)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return Linear - BN - ReLU - Linear(no bias): BYOL's projector and predictor.

    Section 3.2, with the biases of the official code (`networks.py`): the first layer has one, the second
    has none.
    """
    return Perceptron(
        nn.Linear(inputs, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs, bias=False),
    )


def simsiam_projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return SimSiam's three-layer projector, normalised at its output too (arXiv 2011.10566, section 3)."""
    return Perceptron(
        nn.Linear(inputs, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs, bias=False),
        nn.BatchNorm1d(outputs, affine=False),
    )


def simsiam_predictor(width: int, bottleneck: int) -> nn.Sequential:
    """Return SimSiam's predictor: a bottleneck, normalised inside only."""
    return Perceptron(
        nn.Linear(width, bottleneck, bias=False),
        nn.BatchNorm1d(bottleneck),
        nn.ReLU(inplace=True),
        nn.Linear(bottleneck, width),
    )
