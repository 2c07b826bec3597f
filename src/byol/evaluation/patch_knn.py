"""kNN between the cells of feature maps: how much a map tells of what lies where, with nothing fitted."""

import torch
from torch import Tensor

from byol.core.backbone import Backbone
from byol.data.masks import PixelClasses
from byol.errors import UserError
from byol.evaluation.dense_features import map_batches
from byol.evaluation.dense_task import masks_of
from byol.evaluation.knn import TEMPERATURE, default_neighbours, knn_scores
from byol.evaluation.pixel_metrics import pixel_confusion
from byol.evaluation.problem import predicted
from byol.randomness import CELLS, derived_generator
from byol.types import ImageSet

LARGEST_BANK = 50_000
LARGEST_QUERIES = 20_000


def patch_knn(
    backbone: Backbone,
    train: ImageSet,
    scored: ImageSet,
    classes: PixelClasses,
    *,
    bank: int = LARGEST_BANK,
    queries: int = LARGEST_QUERIES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> tuple[Tensor, dict[str, float]]:
    """Give each cell of the scored images the class that its nearest cells of train vote for, by cosine.

    A cell's class is the one that most of the pixels under it have, void ones aside; cells with none
    but void pixels are left out.

    Args:
        backbone: is moved to `device`; its state stays bit-identical.
        train: with masks.
        scored: likewise.
        classes: of the masks.
        bank: at most that many cells of train vote, random ones, but one of each image at least.
        queries: likewise of those that are scored.
        seed: of these draws.
        device: where to compute.
        num_workers: processes that decode images which are not in memory.

    Returns:
        The confusion matrix [K,K] of cells, and what it was done with, for results.json.
    """
    known, labels = labelled_cells(backbone, train, classes, bank, seed, device, num_workers)
    asked, truth = labelled_cells(backbone, scored, classes, queries, seed, device, num_workers)
    k, num_classes = default_neighbours(len(known)), len(classes.names)
    scores = knn_scores(known.to(device), labels, asked.to(device), k, TEMPERATURE, num_classes)
    confusion = pixel_confusion([predicted(scores)[:, 0]], [truth], classes)
    counts = {"bank": len(known), "queries": len(asked)}
    return confusion, {"k": k, "temperature": TEMPERATURE, **counts}


def labelled_cells(
    backbone: Backbone,
    images: ImageSet,
    classes: PixelClasses,
    limit: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return cells that have a class: random ones, of each image at most `limit` / images, or one.

    Returns:
        Their vectors [N,D], and their classes [N] int64.

    Raises:
        UserError: an image or a mask cannot be read, or all pixels are void.
    """
    masks, share = masks_of(images), max(1, limit // len(images))
    vectors: list[Tensor] = []
    labels: list[Tensor] = []
    for maps in map_batches(backbone, images, device, num_workers):
        for features in maps.cpu():
            index = len(labels)
            cells = cell_classes(masks[index], (features.shape[1], features.shape[2]), classes)  # [h*w]
            order = torch.randperm(len(cells), generator=derived_generator(seed, CELLS, index))
            chosen = order[cells[order] >= 0][:share]
            vectors.append(features.flatten(1).T[chosen])  # [n,D]
            labels.append(cells[chosen])
    if not any(map(len, labels)):
        raise UserError(f"the masks hold nothing but void ({classes.void})")
    return torch.cat(vectors), torch.cat(labels)


def cell_classes(mask: Tensor, grid: tuple[int, int], classes: PixelClasses) -> Tensor:
    """Return the class [h*w] that most pixels under each cell of a map have, the first of equals; -1 where
    none has a class.

    Args:
        mask: uint8 [H,W].
        grid: h and w; pixel y lies under row floor(y * h / H), and so for columns.
        classes: of the mask.
    """
    rows, columns = (torch.arange(side) * n // side for side, n in zip(mask.shape, grid, strict=True))
    cell = rows[:, None] * grid[1] + columns  # [H,W]
    size = len(classes.names)
    counted = (mask != classes.void) & (mask < size)
    pairs = cell[counted] * size + mask[counted]
    counts = torch.bincount(pairs, minlength=grid[0] * grid[1] * size).view(-1, size)  # [h*w,K]
    return torch.where(counts.sum(dim=1) > 0, counts.argmax(dim=1), -1)
