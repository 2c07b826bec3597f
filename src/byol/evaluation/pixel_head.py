"""Linear heads of a segmentation: 1x1 convolutions on frozen maps, all learning rates in one pass."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from byol.randomness import VIEWS, derived_generator, epoch_order

LEARNING_RATES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Of standardised features."""
EPOCHS = 30
BATCH_SIZE = 16


@dataclass(frozen=True)
class PixelHeads:
    """Linear classifiers of each place of a map, side by side."""

    weight: Tensor
    """[L,K,D]"""
    bias: Tensor
    """[L,K]"""

    def logits(self, maps: Tensor) -> Tensor:
        """Return [L,B,K,h,w] of maps [B,D,h,w]."""
        found = F.conv2d(maps, self.weight.flatten(0, 1)[:, :, None, None], self.bias.flatten())
        return found.unflatten(1, self.bias.shape).transpose(0, 1)  # [B,L*K,h,w] -> [L,B,K,h,w]

    def after(self, scale: "Scale") -> "PixelHeads":
        """Return the heads that give of plain maps what these give of standardised ones."""
        weight = self.weight / scale.std
        return PixelHeads(weight, self.bias - weight @ scale.mean)


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation [D] of features over all places of all maps."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, maps: Sequence[Tensor]) -> Self:
        """Measure maps [D,h,w], whose sides may differ; a feature that never changes has deviation 1."""
        count = sum(features[0].numel() for features in maps)
        sums = torch.stack([features.double().sum(dim=(1, 2)) for features in maps])  # [N,D]
        mean = sums.sum(dim=0) / count
        squares = [(features - mean[:, None, None]).square().sum(dim=(1, 2)) for features in maps]
        variance = torch.stack(squares).sum(dim=0) / count
        return cls(mean.float(), torch.where(variance > 0, variance, 1).sqrt().float())

    def __call__(self, maps: Tensor) -> Tensor:
        """Standardise maps [...,D,h,w]."""
        return (maps - self.mean[:, None, None]) / self.std[:, None, None]


def fit_pixel_heads(
    maps: Sequence[Tensor],
    masks: Sequence[Tensor],
    num_classes: int,
    void: int,
    *,
    rates: Sequence[float] = LEARNING_RATES,
    epochs: int = EPOCHS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> PixelHeads:
    """Train one head per learning rate on the same batches: SGD with Nesterov momentum 0.9, no weight decay,
    cosine schedule.

    The loss is the mean cross-entropy over the pixels that are not void, of logits upsampled bilinearly
    to the mask's size. Neighbouring pixels tell nearly the same: each step takes rows and columns at
    a distance of half a cell of the map, from an offset that is drawn anew.

    Args:
        maps: [D,h,w] of each image, standardised in here; sides may differ from image to image.
        masks: uint8 [H,W] of each.
        num_classes: K.
        void: the number of pixels that do not count.
        rates: L learning rates.
        epochs: how many.
        seed: of order and offsets.
        device: where to compute.

    Returns:
        Heads for the maps as they are given.
    """
    scale = Scale.of(maps)
    weight = torch.zeros(len(rates), num_classes, len(scale.mean), device=device, requires_grad=True)
    bias = torch.zeros(len(rates), num_classes, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=1.0, momentum=0.9, nesterov=True)
    factors = weight.detach().new_tensor(rates)
    total, step = epochs * math.ceil(len(maps) / BATCH_SIZE), 0
    for epoch in range(epochs):
        for rows in epoch_order(len(maps), seed, epoch).split(BATCH_SIZE):
            optimizer.param_groups[0]["lr"] = (1 + math.cos(math.pi * step / total)) / 2
            optimizer.zero_grad()
            generator = derived_generator(seed, VIEWS, step)
            losses = _losses(
                PixelHeads(weight, bias), _grouped(maps, masks, rows, scale, device), void, generator
            )
            # Scaling a head's loss scales its steps: the gradient enters them linearly.
            (factors * losses).sum().backward()
            optimizer.step()
            step += 1
    scale = Scale(scale.mean.to(device), scale.std.to(device))
    return PixelHeads(weight.detach(), bias.detach()).after(scale)


def _grouped(
    maps: Sequence[Tensor], masks: Sequence[Tensor], rows: Tensor, scale: Scale, device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield standardised maps [B,D,h,w] and masks [B,H,W], those of one size together."""
    groups: dict[tuple[torch.Size, torch.Size], list[int]] = {}
    for index in rows.tolist():
        groups.setdefault((maps[index].shape, masks[index].shape), []).append(index)
    for group in groups.values():
        stacked = torch.stack([maps[index] for index in group])
        yield scale(stacked).to(device), torch.stack([masks[index] for index in group]).to(device)


def _losses(
    heads: PixelHeads, batch: Iterator[tuple[Tensor, Tensor]], void: int, generator: torch.Generator
) -> Tensor:
    """Return the mean cross-entropy of each head [L] over the pixels that are not void."""
    losses, count = torch.zeros_like(heads.bias[:, 0]), torch.zeros_like(heads.bias[0, 0])
    for maps, masks in batch:
        down, across = (
            _some_places(side, cells, generator)
            for side, cells in zip(masks.shape[1:], maps.shape[2:], strict=True)
        )
        targets = masks[:, down][:, :, across].long()  # [B,r,c]
        logits = heads.logits(maps)  # [L,B,K,h,w]
        logits = _upsampling(logits.shape[3], masks.shape[1], down, logits.device) @ logits
        logits = logits @ _upsampling(logits.shape[4], masks.shape[2], across, logits.device).T  # [L,B,K,r,c]
        each = F.cross_entropy(
            logits.flatten(0, 1), targets.repeat(len(losses), 1, 1), ignore_index=void, reduction="none"
        )
        losses = losses + each.view(len(losses), -1).sum(dim=1)
        count = count + (targets != void).sum()
    return losses / count.clamp(min=1)


def _some_places(side: int, cells: int, generator: torch.Generator) -> slice:
    """Return every n-th of `side` pixels from a random one of the first n, n being half a cell."""
    distance = max(1, side // cells // 2)
    return slice(int(torch.randint(distance, (), generator=generator)), side, distance)


def _upsampling(cells: int, side: int, places: slice, device: torch.device) -> Tensor:
    """Return the weights [places,cells] of a map's rows in rows `places` of its bilinear upsampling."""
    each = torch.eye(cells, device=device)[None]  # [1,cells,cells]
    whole = F.interpolate(each, side, mode="linear", align_corners=False)[0]  # [cells,side]
    return whole[:, places].T
