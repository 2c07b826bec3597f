"""The online network: what the target is a moving average of."""

from torch import Tensor, nn

from byol.core.backbone import Backbone


class OnlineNetwork(nn.Module):
    """Backbone, then projector."""

    def __init__(self, backbone: Backbone, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Tensor, with_representation: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return projections [B,D] of images [B,C,S,S]; if asked to, representations beside them."""
        representation: Tensor = self.backbone(images)  # [B,D]
        projection: Tensor = self.projector(representation)  # [B,D]
        return (projection, representation) if with_representation else projection
