"""One direction of a term between the places of two maps, forward and backward, as ours and as others do it.

Others, lucidrains/pixel-level-contrastive-learning and after it sabadijou/byol_multi_gpu, take
`F.cosine_similarity` of two broadcast maps, which has a number for every pair of places and channel. Their
formulas are written out here, with the mean over each image's own pairs.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from networks import DEVICE
from torch import Tensor
from turn import memory, seconds, set_up_torch, take_turns

from byol.core.pixel_heads import PixelPropagation
from byol.core.pixel_losses import pixel_consistency, pixel_contrast

TEMPERATURE, GAMMA = 0.3, 2.0
Term = Callable[[Tensor, Tensor, Tensor], Tensor]


def similarities(first: Tensor, second: Tensor) -> Tensor:
    """Return cosines [B,h w,h w] as theirs."""
    return F.cosine_similarity(first.flatten(2)[:, :, :, None], second.flatten(2)[:, :, None, :], dim=1)


def their_consistency(prediction: Tensor, target: Tensor, positives: Tensor) -> Tensor:
    """Return PixPro's loss of each image."""
    chosen = similarities(prediction, target).masked_fill(~positives, 0)
    return 2 - 2 * chosen.sum(dim=(1, 2)) / positives.sum(dim=(1, 2))


def their_contrast(projection: Tensor, target: Tensor, positives: Tensor) -> Tensor:
    """Return PixContrast's loss of each image."""
    odds = (similarities(projection, target) / TEMPERATURE).exp()
    has_positive = positives.any(dim=2)
    share = odds.masked_fill(~positives, 0).sum(dim=2) / odds.sum(dim=2)
    losses = -share.masked_fill(~has_positive, 1).log()
    return losses.sum(dim=1) / has_positive.sum(dim=1)


def their_propagation(feature_map: Tensor, _target: Tensor, _positives: Tensor) -> Tensor:
    """Return the propagated map; values are the map itself, scaled to length 1: as ours, not as theirs."""
    weights = similarities(feature_map, feature_map).relu() ** GAMMA
    values = F.normalize(feature_map, dim=1).flatten(2)
    return torch.einsum("bij,bcj->bci", weights, values).view_as(feature_map)


def our_propagation(feature_map: Tensor, _target: Tensor, _positives: Tensor) -> Tensor:
    """Return the same of the package."""
    propagated: Tensor = PixelPropagation(feature_map.shape[1], layers=0, gamma=GAMMA)(feature_map)
    return propagated


TERMS: dict[str, dict[str, Term]] = {
    "byol": {
        "consistency": pixel_consistency,
        "contrast": partial(pixel_contrast, temperature=TEMPERATURE),
        "propagation": our_propagation,
    },
    "broadcast": {
        "consistency": their_consistency,
        "contrast": their_contrast,
        "propagation": their_propagation,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--term", choices=TERMS["byol"], required=True)
    parser.add_argument("--whose", choices=TERMS, required=True)
    parser.add_argument("--side", type=int, default=14)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    set_up_torch(None)
    torch.manual_seed(0)
    online, target = torch.randn(2, options.batch, options.width, options.side, options.side).to(DEVICE)
    positives = (torch.rand(options.batch, *2 * [options.side**2]) < 0.05).to(DEVICE)
    term = TERMS[options.whose][options.term]
    online.requires_grad_()

    values: list[float] = []

    def work() -> None:
        online.grad = None
        result = term(online, target, positives).square().mean()
        result.backward()
        values.append(float(result.detach()))

    take_turns(work, lambda work: {**memory(work), **seconds(work), "value": values[-1]})


if __name__ == "__main__":
    main()
