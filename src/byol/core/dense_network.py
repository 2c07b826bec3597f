"""The networks of the pixel learners: maps of projections and, with an instance branch, vectors."""

from typing import NamedTuple

from torch import Tensor, nn

from byol.core.backbone import Backbone


class Projections(NamedTuple):
    """What the network makes of a view."""

    pixel: Tensor
    """[B,D,h,w]."""
    instance: Tensor | None
    """[B,D], or None without an instance branch."""
    representation: Tensor
    """[B,D'] what the backbone makes of the whole image, detached."""


class DenseProjector(nn.Module):
    """One head for each place of the map, and one for the whole image."""

    def __init__(self, pixel: nn.Module, instance: nn.Module | None) -> None:
        super().__init__()
        self.pixel = pixel
        self.instance = instance


class DenseNetwork(nn.Module):
    """Backbone, then a projector at each place of its feature map, and one of its representation."""

    def __init__(self, backbone: Backbone, projector: DenseProjector) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Tensor) -> Projections:
        """Return projections of images [B,C,S,S]."""
        features, representation = self.backbone.map_and_representation(images)  # [B,D",h,w], [B,D']
        head = self.projector.instance
        instance = None if head is None else head(representation)  # [B,D]
        return Projections(self.projector.pixel(features), instance, representation.detach())


class DensePredictor(nn.Module):
    """What stands behind the projections: pixel propagation, and a predictor of instances."""

    def __init__(self, pixel: nn.Module, instance: nn.Module | None) -> None:
        super().__init__()
        self.pixel = pixel
        self.instance = instance

    def forward(self, online: Projections) -> tuple[Tensor, Tensor | None]:
        """Return predictions [B,D,h,w] and [B,D], the latter None where there is no instance branch."""
        if self.instance is None:
            return self.pixel(online.pixel), None
        return self.pixel(online.pixel), self.instance(online.instance)
