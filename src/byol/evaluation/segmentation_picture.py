"""A picture of a segmentation: images, their true classes and the predicted ones side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from byol.data.masks import PixelClasses
from byol.evaluation.pictures import save_figure

_MOST_NAMED = 40
"""Up to so many classes stand in the legend."""


def draw_segmentation(
    file: Path, rows: Sequence[tuple[Tensor, Tensor, Tensor]], classes: PixelClasses, title: str
) -> None:
    """Draw a row an image: the image, the truth, the prediction. Void is black.

    Args:
        file: PNG to write.
        rows: image uint8 [C,H,W], mask and prediction uint8 [H,W].
        classes: of the masks.
        title: above all of it.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = class_colours(len(classes.names))
    height, width = rows[0][1].shape
    named = classes.names[:_MOST_NAMED]
    lines = -(-(len(named) + 1) // 6)
    size = (10, 10 / 3 * height / width * len(rows) + 0.9 + 0.25 * lines)
    figure = Figure(size, dpi=110, layout="compressed")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, (image, mask, prediction) in zip(axes, rows, strict=True):
        pixels = image.numpy()
        line[0].imshow(pixels[:3].transpose(1, 2, 0) if len(pixels) >= 3 else pixels[0], cmap="grey")
        for place, numbers in zip(line[1:], (mask, prediction), strict=True):
            place.imshow(coloured(numbers, colours, classes.void), interpolation="nearest")
        for place in line:
            place.set_axis_off()
    for place, heading in zip(axes[0], ("image", "truth", "prediction"), strict=True):
        place.set_title(heading, fontsize=9)
    patches = [Patch(color=colour, label=name) for colour, name in zip(colours, named, strict=False)]
    patches.append(Patch(color="black", label="void"))
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=8)
    figure.suptitle(title, fontsize=10, parse_math=False)
    save_figure(figure, file)


def class_colours(count: int) -> NDArray[np.float64]:
    """Return a colour [count,3] in [0,1] for each class: as different as may be up to twenty."""
    from matplotlib import colormaps

    if count <= 20:
        strong_first = [*range(0, 20, 2), *range(1, 20, 2)]
        return colormaps["tab20"](strong_first[:count])[:, :3]
    return colormaps["hsv"](np.arange(count) / count)[:, :3]


def coloured(numbers: Tensor, colours: NDArray[np.float64], void: int) -> NDArray[np.float64]:
    """Return class numbers [H,W] as colours [H,W,3]; black where they are void."""
    classes = numbers.numpy()
    shown = colours[classes.clip(max=len(colours) - 1)]
    shown[classes == void] = 0
    return shown
