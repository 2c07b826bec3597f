"""Which places of two feature maps show the same spot of an image."""

import torch
from torch import Tensor

from byol.errors import UserError
from byol.types import View


def positive_pairs(view1: View, view2: View, grid: tuple[int, int], threshold: float = 0.7) -> Tensor:
    """Say which cells of two views' feature maps are close together in the image (PixPro, section 3.1).

    Cells are compared by their centres, in coordinates of the source image, both of whose sides are 1. Two
    are a positive pair if their distance is less than `threshold` diagonals of a cell, of the view whose
    cells are larger. A mirrored view is mirrored back.

    The official code (`pixpro.py`) has the same rule; it takes a crop's pixels for points, w - 1 apart, where
    here they are areas: a difference of one part in the image's width.

    Args:
        view1: with its crop's box; only box and flip are used, `view2`'s too.
        view2: the other view of the same images.
        grid: height h and width w of the feature maps.
        threshold: more than 0.

    Returns:
        [B,h w,h w] bool: cell of the first view, row by row, and cell of the second.

    Raises:
        UserError: a view has no box, because an affine made it.
    """
    x1, y1, diagonal1 = _centres(view1, grid)
    x2, y2, diagonal2 = _centres(view2, grid)
    across = (x1[:, :, None] - x2[:, None]) ** 2  # [B,w,w]
    down = (y1[:, :, None] - y2[:, None]) ** 2  # [B,h,h]
    distance = (down[:, :, None, :, None] + across[:, None, :, None, :]).sqrt()  # [B,h,w,h,w]
    limit = threshold * torch.maximum(diagonal1, diagonal2)  # [B]
    return (distance < limit[:, None, None, None, None]).flatten(3).flatten(1, 2)  # [B,h w,h w]


def _centres(view: View, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the x [B,w] and y [B,h] of cells' centres in the image, and the diagonal [B] of a cell."""
    if view.box is None:
        raise UserError(
            "the views do not tell which part of the image they show: pixels are matched between crops "
            "(preset imagenet or small), not between views that an affine made (glyph)"
        )
    x0, y0, x1, y1 = view.box.float().unbind(1)
    height, width = (y1 - y0) / grid[0], (x1 - x0) / grid[1]
    column = torch.arange(grid[1], device=view.box.device) + 0.5  # [w]
    row = torch.arange(grid[0], device=view.box.device) + 0.5  # [h]
    x = torch.where(
        view.flipped[:, None], x1[:, None] - column * width[:, None], x0[:, None] + column * width[:, None]
    )
    y = y0[:, None] + row * height[:, None]
    return x, y, (height**2 + width**2).sqrt()
