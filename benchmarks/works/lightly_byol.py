"""lightly's parts, put together as its BYOL example puts them."""

import copy
from collections.abc import Callable

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from networks import precise
from torch import Tensor, nn


class LightlyBYOL(nn.Module):
    """Both networks; the slow one moves before each step."""

    def __init__(self, backbone: nn.Module, width: int, hidden: int, precision: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = BYOLProjectionHead(width, hidden, 256)
        self.predictor = BYOLPredictionHead(256, hidden, 256)
        self.slow_backbone, self.slow_projector = copy.deepcopy(backbone), copy.deepcopy(self.projector)
        deactivate_requires_grad(self.slow_backbone)
        deactivate_requires_grad(self.slow_projector)
        self.criterion = NegativeCosineSimilarity()
        self.precision = precision

    def trained(self) -> list[nn.Parameter]:
        """Return what the optimizer gets."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the loss of two views."""
        update_momentum(self.backbone, self.slow_backbone, m=0.99)
        update_momentum(self.projector, self.slow_projector, m=0.99)
        with precise(self.precision):
            prediction1, target1 = self._predicted(first), self._target(first)
            prediction2, target2 = self._predicted(second), self._target(second)
            loss: Tensor = 0.5 * (self.criterion(prediction1, target2) + self.criterion(prediction2, target1))
        return loss

    def _predicted(self, view: Tensor) -> Tensor:
        prediction: Tensor = self.predictor(self.projector(self.backbone(view).flatten(start_dim=1)))
        return prediction

    def _target(self, view: Tensor) -> Tensor:
        projection: Tensor = self.slow_projector(self.slow_backbone(view).flatten(start_dim=1))
        return projection.detach()


def train_step(
    learner: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    first: Tensor,
    second: Tensor,
) -> None:
    """Make one step, in the example's order."""
    learner(first, second).backward()
    optimizer.step()
    optimizer.zero_grad()
