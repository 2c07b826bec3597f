"""What the pixel learners compute, written out: loops over places, and sums without a product of matrices."""

import math

import torch
from torch import Tensor, nn

from byol.types import View


def random_views(batch: int, side: int, generator: torch.Generator) -> tuple[View, View]:
    """Return two views [B,3,S,S] float64: crops of 0.4 to 1 of the sides, half of them mirrored."""

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    made = []
    for _ in range(2):
        sides = 0.4 + 0.6 * random(batch, 2)
        corner = random(batch, 2) * (1 - sides)
        image = torch.randn(batch, 3, side, side, generator=generator, dtype=torch.float64)
        made.append(View(image, torch.cat([corner, corner + sides], 1), random(batch) < 0.5))
    return made[0], made[1]


def with_box(view: View, rows: slice, box: tuple[float, float, float, float]) -> View:
    """Return a view of which some images show another part of theirs."""
    assert view.box is not None
    boxes = view.box.clone()
    boxes[rows] = boxes.new_tensor(box)
    return View(view.image, boxes, view.flipped)


def looped_pairs(view1: View, view2: View, grid: tuple[int, int], threshold: float) -> Tensor:
    """Return `positive_pairs` [B,h w,h w], place by place in Python's floats."""
    batch, count = len(view1.flipped), grid[0] * grid[1]
    pairs = torch.zeros(batch, count, count, dtype=torch.bool)
    for image in range(batch):
        (centres1, diagonal1), (centres2, diagonal2) = (
            _cells_of(view, image, grid) for view in (view1, view2)
        )
        for i, first in enumerate(centres1):
            for j, second in enumerate(centres2):
                near = math.dist(first, second) / max(diagonal1, diagonal2) < threshold
                pairs[image, i, j] = near
    return pairs


def _cells_of(view: View, image: int, grid: tuple[int, int]) -> tuple[list[tuple[float, float]], float]:
    """Return the centres (x, y) of an image's cells, row by row, and their diagonal."""
    assert view.box is not None
    x0, y0, x1, y1 = view.box[image].tolist()
    height, width = (y1 - y0) / grid[0], (x1 - x0) / grid[1]
    centres = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            shown = grid[1] - 1 - column if view.flipped[image] else column  # the crop's column
            centres.append((x0 + (shown + 0.5) * width, y0 + (row + 0.5) * height))
    return centres, math.hypot(height, width)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of two vectors [D]."""
    return first @ second / (first @ first).sqrt() / (second @ second).sqrt()


def looped_consistency(prediction: Tensor, target: Tensor, positives: Tensor) -> Tensor:
    """Return `pixel_consistency` [B] of maps [B,D,h,w]."""
    losses = []
    for p, t, chosen in zip(prediction.flatten(2), target.flatten(2), positives, strict=True):
        found = [2 - 2 * cosine(p[:, i], t[:, j]) for i, j in chosen.nonzero().tolist()]
        losses.append(sum(found, p.new_zeros(())) / max(len(found), 1))
    return torch.stack(losses)


def looped_contrast(projection: Tensor, target: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """Return `pixel_contrast` [B] of maps [B,D,h,w]."""
    losses = []
    for p, t, chosen in zip(projection.flatten(2), target.flatten(2), positives, strict=True):
        found = []
        for i in range(len(chosen)):
            if chosen[i].any():
                terms = [(cosine(p[:, i], t[:, j]) / temperature).exp() for j in range(len(chosen))]
                near = [term for term, is_near in zip(terms, chosen[i].tolist(), strict=True) if is_near]
                found.append(-(torch.stack(near).sum() / torch.stack(terms).sum()).log())
        losses.append(sum(found, p.new_zeros(())) / max(len(found), 1))
    return torch.stack(losses)


def looped_propagation(feature_map: Tensor, values: Tensor, gamma: float) -> Tensor:
    """Return the propagated map [B,D,h,w]: image by image, place by place, sums over all places
    of values scaled to length 1."""
    images = []
    for x, g in zip(feature_map.flatten(2), values.flatten(2), strict=True):
        places = []
        for i in range(x.shape[1]):
            total = torch.zeros_like(g[:, i])
            for j in range(x.shape[1]):
                weight = cosine(x[:, i], x[:, j]).clamp(min=0) ** gamma
                total = total + weight * g[:, j] / g[:, j].square().sum().sqrt()
            places.append(total)
        images.append(torch.stack(places, dim=1))
    return torch.stack(images).view_as(values)


def perceptron(head: nn.Module, rows: Tensor) -> Tensor:
    """Apply a head of two layers to rows [N,D] by its weights, with the rows' own statistics."""
    assert isinstance(head, nn.Sequential)
    first, norm, _, last = head
    hidden = rows @ first.weight.flatten(1).T + first.bias
    spread = (hidden.var(0, correction=0) + norm.eps).sqrt()
    hidden = (hidden - hidden.mean(0)) / spread * norm.weight + norm.bias
    result = hidden.clamp(min=0) @ last.weight.flatten(1).T
    return result if last.bias is None else result + last.bias


def at_places(feature_map: Tensor) -> Tensor:
    """Return rows [B h w,D] of a map [B,D,h,w]."""
    return feature_map.permute(0, 2, 3, 1).flatten(0, 2)
