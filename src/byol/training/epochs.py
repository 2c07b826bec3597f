"""`byol.train_byol`: a learner, a loader, an optimizer, a number of epochs."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from byol.allocation import memory_kept
from byol.core.learner import BYOL
from byol.errors import UserError
from byol.training.loop import Loop, images_of
from byol.training.progress import Progress


@memory_kept()
def train_byol(
    model: BYOL, train_dl: Iterable[Any], optimizer: Optimizer, epochs: int, device: str | torch.device
) -> BYOL:
    """Train a learner for some epochs, and return it as an encoder. Tells the mean loss of each epoch.

    Args:
        model: the learner; BYOL or SimSiam. Trained in place, moved to the device.
        train_dl: gives batches `x` or `(x, y)` every time it is iterated over, with images x
            [B,C,H,W], uint8 or float in [0,1]. A batch of a single image, which has no batch
            statistics, is left out.
        optimizer: over `model.parameters()` or `model.online_parameters()`, which is the same: the
            target has no gradients, and no optimizer moves it.
        epochs: number of passes over `train_dl`.
        device: where to train, such as "cuda" or "cpu".

    Returns:
        The learner in eval mode: `model(images, return_embedding=True)` gives projections and
        embeddings, and no statistic moves any more.

    Raises:
        UserError: a batch holds no images, or an epoch no batch.
        NonFiniteError: a loss or a weight is no finite number.
    """
    model.to(device).train()
    loop, progress = Loop(model, optimizer), Progress(epochs)
    for epoch in range(1, epochs + 1):
        first_step = loop.step
        for batch in train_dl:
            if len(images_of(batch)) > 1:
                loop([batch])
        if loop.step == first_step:
            raise UserError(
                f"epoch {epoch} has no batch of two images or more: train_dl must give some every time "
                "it is iterated over"
            )
        progress.say(f"epoch {epoch}/{epochs}  loss {loop.mean_loss():.3f}")
    return model.eval()
