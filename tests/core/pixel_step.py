"""PixPro and PixContrast written out: nothing of ours but the weights, and optimization by hand."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from byol.core.pixel_learner import PixelCL
from byol.types import View
from tests.core.conftest import tiny_net
from tests.core.pixel_loops import (
    at_places,
    looped_consistency,
    looped_contrast,
    looped_pairs,
    looped_propagation,
    perceptron,
)

MAP_LAYER, GRID = 5, (4, 4)
"""The last layer of the tiny network that gives a map, and its places at 8 pixels."""


def make_pixel_learner(net: nn.Module | None = None, **settings: Any) -> PixelCL:
    """Wrap the tiny network, or another, with small heads; the settings' defaults are the learner's."""
    defaults = {
        "image_size": 8,
        "hidden_layer_pixel": MAP_LAYER,
        "projection_size": 5,
        "projection_hidden_size": 12,
    }
    return PixelCL(net or tiny_net(), **{**defaults, **settings})


class WrittenOut:
    """A copy of a learner's weights, and the loss of two views by the paper's formulas."""

    def __init__(self, learner: PixelCL, temperature: float = 0.3) -> None:
        self.weights = copy.deepcopy(learner)
        self.temperature = temperature

    def loss(self, view1: View, view2: View) -> Tensor:
        """Return the loss of both directions, with a gradient."""
        pairs = looped_pairs(view1, view2, GRID, 0.7)
        there = self._direction(view1, view2, pairs)
        back = self._direction(view2, view1, pairs.transpose(1, 2))
        return there + back

    def gradients(self, view1: View, view2: View) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its gradients by name."""
        parameters = dict(self.weights.named_online_parameters())
        loss = self.loss(view1, view2)
        return loss.detach(), dict(
            zip(parameters, torch.autograd.grad(loss, [*parameters.values()]), strict=True)
        )

    def step(self, gradients: dict[str, Tensor], learning_rate: float, tau: float) -> None:
        """Descend, then move the target."""
        assert self.weights.target is not None
        with torch.no_grad():
            for name, parameter in self.weights.named_online_parameters():
                parameter -= learning_rate * gradients[name]
            followed = dict(self.weights.online.named_parameters())
            for name, parameter in self.weights.target.network.named_parameters():
                parameter.copy_(tau * parameter + (1 - tau) * followed[name])

    def _direction(self, view: View, other: View, pairs: Tensor) -> Tensor:
        learner = self.weights
        assert learner.target is not None
        with torch.no_grad():
            target, target_vector = self._projections(learner.target.network, other.image)
        online, vector = self._projections(learner.online, view.image)
        matched = [image for image, chosen in enumerate(pairs) if chosen.any()]
        if learner.use_pixpro:
            transform = learner.predictor.pixel.transform
            values = torch.einsum("bdhw,ed->behw", online, transform.weight[:, :, 0, 0])
            propagated = looped_propagation(online, values + transform.bias[:, None, None], 2)
            losses = looped_consistency(propagated, target, pairs)[matched]
        else:
            losses = looped_contrast(online, target, pairs, self.temperature)[matched] / 2
        loss = losses.sum() / max(len(matched), 1)
        if vector is not None and target_vector is not None:
            predicted = perceptron(learner.predictor.instance, vector)
            cosines = (predicted * target_vector).sum(1) / predicted.norm(dim=1) / target_vector.norm(dim=1)
            loss = loss + learner.alpha * (2 - 2 * cosines).mean()
        return loss

    def _projections(self, network: Any, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the map [B,D,h,w] and, where there is an instance branch, the vectors [B,D] of images."""
        layers = list(network.backbone.net)
        features = nn.Sequential(*layers[: MAP_LAYER + 1])(images)
        rows = perceptron(network.projector.pixel, at_places(features))
        projection = rows.view(len(images), *GRID, -1).permute(0, 3, 1, 2)
        head = network.projector.instance
        return projection, None if head is None else perceptron(head, features.mean(dim=(2, 3)))


def cosine_tau(base: float, step: int, steps: int) -> float:
    """Return tau of a step, rising from its base to 1."""
    return 1 - (1 - base) * (math.cos(math.pi * step / steps) + 1) / 2
