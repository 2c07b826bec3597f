"""views.png: what the network is shown, to look at before waiting for hours."""

from pathlib import Path

import torch
from torch import Tensor

from byol.data.batches import StartedBatches
from byol.training.module import Pretraining

_COLUMNS = 16
_PIXELS = 64
"""Small views are enlarged to at least this side."""


def draw_first_views(file: Path, module: Pretraining, batches: StartedBatches) -> None:
    """Draw the views of the first batch, unless they are drawn."""
    if file.exists():
        return
    batch = batches.first()
    batch = batch._replace(images=batch.images.to(module.device))
    # This is outside of autocast: a graph would be compiled for this one batch, while other processes wait.
    with torch.compiler.set_stance("force_eager"):
        view1, view2 = module.make_views(batch)
    _save_views(file, view1.image, view2.image, module)


def _save_views(file: Path, view1: Tensor, view2: Tensor, module: Pretraining) -> None:
    """Save the first views of both kinds: each pair of rows is first view, second view."""
    from torchvision.utils import make_grid, save_image

    preprocess = module.learner.backbone.preprocess
    assert preprocess is not None
    starts = range(0, min(len(view1), 2 * _COLUMNS), _COLUMNS)
    rows = [view[start : start + _COLUMNS] for start in starts for view in (view1, view2)]
    images = torch.cat(rows).float().cpu()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preprocess.mean, preprocess.std))
    scale = max(1, _PIXELS // images.shape[-1])
    images = (images * std + mean).clamp(0, 1)
    images = torch.nn.functional.interpolate(images, scale_factor=scale, mode="nearest")
    if images.shape[1] not in (1, 3):
        images = images[:, :1]
    save_image(make_grid(images, nrow=min(_COLUMNS, len(view1)), padding=2, pad_value=1.0), file)
