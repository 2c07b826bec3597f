"""From a batch of the loader to two normalised views on the training device."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from byol.augment.apply import photometric
from byol.augment.draw import PhotometricDraw, draw_photometric
from byol.augment.presets import ViewSpec
from byol.augment.transfer import sent
from byol.augment.views import (
    Columns,
    Normalization,
    columns,
    draw_pair,
    made_views,
    standardized,
    with_geometry,
)
from byol.data.batches import Batch, BatchPlan
from byol.randomness import VIEWS, derived_generator
from byol.types import View


class ViewMaker(nn.Module):
    """Turns batches into views, part of it as one graph."""

    make: "_OneGraph"

    def run_eagerly(self) -> None:
        """Do without compilation from here on."""
        self.make.compiled = self.make.plain


class ResidentViews(ViewMaker):
    """Views of images that stay on the training device; a batch brings only their indices."""

    images: Tensor

    def __init__(
        self,
        images: Tensor,
        specs: tuple[ViewSpec, ViewSpec],
        size: int,
        plan: BatchPlan,
        compiled: bool = False,
        normalize: Normalization = "imagenet",
        boxes: bool = False,
    ) -> None:
        """Hold uint8 images [N,C,H,W]; they move with the module and are in no checkpoint.

        Without `boxes` views have none: computing them is a dozen small operations in every step.
        """
        super().__init__()
        self.register_buffer("images", images, persistent=False)
        self.specs = specs
        self.size = size
        self.plan = plan
        self.normalize = normalize
        self.boxes = boxes
        self.make = _OneGraph(made_views, compiled)

    def forward(self, batch: Batch) -> tuple[View, View]:
        """Return two views of the images that a batch names."""
        generator = derived_generator(self.plan.seed, VIEWS, batch.position, self.plan.rank)
        images = self.images[batch.images]
        draws = draw_pair(self.specs, images, generator)
        made = self.make(images, draws, self.specs, self.size, columns(self.normalize, images))
        return with_geometry(made, draws, images, self.boxes)


class StreamedViews(ViewMaker):
    """Views of crops that the loader's workers have cut: the colours are done here, in one batch."""

    def __init__(
        self,
        specs: tuple[ViewSpec, ViewSpec],
        plan: BatchPlan,
        compiled: bool = False,
        normalize: Normalization = "imagenet",
    ) -> None:
        super().__init__()
        self.specs = specs
        self.plan = plan
        self.normalize = normalize
        self.make = _OneGraph(_coloured, compiled)

    def forward(self, batch: Batch) -> tuple[View, View]:
        """Return two views of crops [B,2,C,S,S], with the boxes and mirrorings that come with them."""
        generator = derived_generator(self.plan.seed, VIEWS, batch.position, self.plan.rank)
        crops = batch.images
        count, channels = len(crops), crops.shape[2]
        drawn = [draw_photometric(spec, count, channels, generator) for spec in self.specs]
        first, second = self.make(crops, sent(drawn, crops.device), columns(self.normalize, crops[:, 0]))
        assert batch.boxes is not None and batch.flipped is not None
        boxes, flipped = batch.boxes.unbind(1), batch.flipped.unbind(1)
        return View(first, boxes[0], flipped[0]), View(second, boxes[1], flipped[1])


def _coloured(crops: Tensor, drawn: list[PhotometricDraw], columns: Columns | None) -> tuple[Tensor, Tensor]:
    with torch.autocast(crops.device.type, enabled=False):  # as `made_views` does
        first, second = (
            photometric(crops[:, view], draw, partial(standardized, columns=columns))
            for view, draw in enumerate(drawn)
        )
    return first, second


class _OneGraph:
    """A function from tensors to two views, compiled where that was asked for and they are not on a CPU.

    On a CPU it takes images apart by what happens to them, which is no one graph (docs/log.md has both ways).
    """

    def __init__(self, function: Callable[..., tuple[Tensor, Tensor]], compiled: bool) -> None:
        self.plain = function
        self.compiled = torch.compile(function, fullgraph=True, dynamic=False) if compiled else function

    def __call__(self, images: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        return (self.plain if images.device.type == "cpu" else self.compiled)(images, *others)


def channels_last(views: tuple[View, View]) -> tuple[View, View]:
    """Lay views out as backbones do, but once: for the online and the target network."""
    first, second = (
        replace(view, image=view.image.contiguous(memory_format=torch.channels_last)) for view in views
    )
    return first, second
