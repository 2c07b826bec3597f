"""Draw docs/positives.jpg: two crops of a photograph, and which cells of their feature maps belong together.

    python benchmarks/positives.py

The photograph comes with scikit-learn (danielbuechele, CC BY 2.0); crops, flips and pairs are those of the
package's own functions.
"""

from pathlib import Path

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from sklearn.datasets import load_sample_image
from torch import Tensor

from byol.augment.presets import Crop, ViewSpec
from byol.augment.views import views
from byol.core.positives import positive_pairs
from byol.types import View

FILE = Path(__file__).parents[1] / "docs" / "positives.jpg"
GRID, SIZE, SEED = 7, 224, 5
COLOURS = ("tab:orange", "tab:cyan")


def draw(file: Path, seed: int = SEED) -> Tensor:
    """Draw the picture; return the pairs [49,49]."""
    image = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)  # [3,H,W]
    spec = ViewSpec(crop=Crop(scale=(0.1, 0.4)), flip=0.5)
    generator = torch.Generator().manual_seed(seed)
    both = views(image[None], SIZE, (spec, spec), generator, normalize=None, return_geometry=True)
    pairs = positive_pairs(*both, (GRID, GRID))[0]  # [49,49]
    figure = Figure(figsize=(14, 4.3), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    source, *crops = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    _draw_source(source, image, both)
    for number, (axes, view) in enumerate(zip(crops, both, strict=True)):
        _draw_crop(axes, view, number)
    _draw_pairs(figure, crops, pairs)
    figure.savefig(file, pil_kwargs={"quality": 88})
    return pairs


def _draw_source(axes: Axes, image: Tensor, both: tuple[View, View]) -> None:
    height, width = image.shape[1:]
    axes.imshow(image.permute(1, 2, 0).numpy())
    for view, colour in zip(both, COLOURS, strict=True):
        assert view.box is not None
        x0, y0, x1, y1 = (view.box[0] * torch.tensor([width, height, width, height])).tolist()
        for step in range(GRID + 1):
            x, y = x0 + step / GRID * (x1 - x0), y0 + step / GRID * (y1 - y0)
            axes.plot([x, x], [y0, y1], color=colour, linewidth=0.6)
            axes.plot([x0, x1], [y, y], color=colour, linewidth=0.6)
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=colour, linewidth=3))
    axes.set(xticks=[], yticks=[], title="An image and two crops, each with its 7 x 7 cells")


def _draw_crop(axes: Axes, view: View, number: int) -> None:
    axes.imshow(view.image[0].permute(1, 2, 0).numpy())
    for step in range(1, GRID):
        axes.axhline(step * SIZE / GRID - 0.5, color="white", linewidth=0.5)
        axes.axvline(step * SIZE / GRID - 0.5, color="white", linewidth=0.5)
    mirrored = ", mirrored" if bool(view.flipped[0]) else ""
    axes.set(xticks=[], yticks=[], title=f"{('first', 'second')[number]} view{mirrored}")
    for spine in axes.spines.values():
        spine.set(color=COLOURS[number], linewidth=4)


def _draw_pairs(figure: Figure, crops: list[Axes], pairs: Tensor) -> None:
    """Join the cells of each pair by an arc; the colour is that of the cell in the first view."""
    matched = pairs.any(dim=1).nonzero()[:, 0].tolist()
    for first, second in pairs.nonzero().tolist():
        colour = colormaps["hsv"](matched.index(first) / len(matched))
        ends = [_centre(first), _centre(second)]
        for axes, end in zip(crops, ends, strict=True):
            axes.plot(*end, "o", color=colour, markeredgecolor="black", markersize=7)
        line = ConnectionPatch(
            *ends,
            *("data", "data"),
            axesA=crops[0],
            axesB=crops[1],
            color=colour,
            linewidth=0.9,
            connectionstyle="arc3,rad=-0.12",  # straight ones of a row would lie on each other
        )
        figure.add_artist(line)


def _centre(cell: int) -> tuple[float, float]:
    row, column = divmod(cell, GRID)
    return (column + 0.5) * SIZE / GRID - 0.5, (row + 0.5) * SIZE / GRID - 0.5


if __name__ == "__main__":
    pairs = draw(FILE)
    print(f"{FILE.name}: {int(pairs.sum())} positive pairs of {pairs.numel()}")
