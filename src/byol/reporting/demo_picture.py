"""The demo's picture: how training went, where the test images lie, and what lies beside them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from byol.types import Features, ImageSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

_QUERIES, _NEIGHBOURS = 6, 8


def draw_demo(file: Path, metrics: list[dict[str, Any]], features: Features, images: ImageSet) -> None:
    """Draw curves, embeddings in the plane, and nearest neighbours of a few test images.

    Args:
        file: PNG to write.
        metrics: records of metrics.jsonl.
        features: of the test images, with labels.
        images: the test images, in the same order.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 10), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subfigures(2, 1, squeeze=False)[:, 0]
    curves, plane = top.subplots(1, 2)
    _draw_curves(curves, metrics)
    _draw_plane(plane, features)
    _draw_neighbours(bottom, features, images)
    figure.savefig(file)


def _draw_curves(axes: "Axes", metrics: list[dict[str, Any]]) -> None:
    losses = [(record["epoch"], record["loss"]) for record in metrics if "loss" in record]
    accuracies = [(record["epoch"], 100 * record["knn"]) for record in metrics if "knn" in record]
    axes.plot(*zip(*losses, strict=True), color="tab:blue")
    axes.set(xlabel="epoch", title="Training without labels")
    axes.set_ylabel("loss (2 - 2 cos, both directions)", color="tab:blue")
    axes.set_ylim(bottom=0)
    right = axes.twinx()
    right.plot(*zip(*accuracies, strict=True), color="tab:orange", marker="o")
    right.set_ylabel("kNN top-1 on the hold-out (%)", color="tab:orange")


def _draw_plane(axes: "Axes", features: Features) -> None:
    from sklearn.manifold import TSNE

    assert features.labels is not None
    vectors = F.normalize(features.vectors, dim=1).numpy()
    perplexity = min(30, (len(vectors) - 1) // 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)
    scatter = axes.scatter(points[:, 0], points[:, 1], c=features.labels, cmap="tab10", s=14)
    axes.legend(*scatter.legend_elements(), title="digit", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xticks=[], yticks=[], title="Test images by their features (t-SNE); colour = true class")


def _draw_neighbours(figure: "SubFigure", features: Features, images: ImageSet) -> None:
    assert features.labels is not None
    figure.suptitle("A test image (left) and its nearest others; green = same class, red = another")
    nearest = nearest_neighbours(features.vectors, _NEIGHBOURS)
    labels = features.labels
    # One query each for the first digits; the classes come in no order in the test split.
    queries = [int((labels == digit).nonzero()[0]) for digit in labels.unique()[:_QUERIES]]
    grid = figure.subplots(len(queries), _NEIGHBOURS + 1, squeeze=False)
    for row, query in zip(grid, queries, strict=True):
        _draw_image(row[0], images[query], "black")
        for axes, neighbour in zip(row[1:], nearest[query].tolist(), strict=True):
            same = labels[neighbour] == labels[query]
            _draw_image(axes, images[neighbour], "tab:green" if same else "tab:red")


def nearest_neighbours(vectors: Tensor, count: int) -> Tensor:
    """Return the indices [N,count] of each vector's nearest others by cosine."""
    normalized = F.normalize(vectors, dim=1)
    similarity = normalized @ normalized.T
    similarity.fill_diagonal_(-2.0)
    return similarity.topk(count, dim=1).indices


def _draw_image(axes: "Axes", image: Tensor, colour: str) -> None:
    pixels = image.permute(1, 2, 0).squeeze(2) if image.shape[0] == 1 else image.permute(1, 2, 0)
    axes.imshow(pixels.to(torch.uint8).numpy(), cmap="gray")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=3)
