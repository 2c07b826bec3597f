"""The loop of `BYOLTrainer` and `train_byol`: one optimizer step after another."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from byol.core.learner import BYOL
from byol.data.dataset_images import sample_image
from byol.errors import UserError
from byol.training.errors import NonFiniteError
from byol.weights import all_finite

_LOOK_EVERY = 50
"""Steps between two looks at whether all is finite: a look makes the host wait for the device."""


class Loop:
    """Steps of an optimizer on a learner's loss, where its weights are. `step` counts them.

    Args:
        learner: in training mode, on its device.
        optimizer: over its parameters; those of the target have no gradient, and no optimizer moves them.
        model: what gives the loss of two views: the learner (None), or DistributedDataParallel around it.
        precision: run networks and loss under autocast to this type; None: as they are.
    """

    def __init__(
        self,
        learner: BYOL,
        optimizer: Optimizer,
        model: nn.Module | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        self.learner = learner
        self.optimizer = optimizer
        self.model = learner if model is None else model
        self.precision = precision
        self.device = next(learner.parameters()).device
        self.step = 0
        # Summed on the device: one loss that is not finite shows in the sum, and no step waits for the host.
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.steps_summed = 0

    def __call__(self, batches: Sequence[Any]) -> None:
        """Take one step on the mean loss of some batches, and move the target once.

        Args:
            batches: one, or several to accumulate gradients; each as `images_of` takes it.

        Raises:
            NonFiniteError: as `require_finite`, which looks every few steps.
        """
        self.optimizer.zero_grad()
        for number, batch in enumerate(batches, 1):
            with self._synchronizing(number == len(batches)):
                loss = self._loss(images_of(batch)) / len(batches)
                loss.backward()
            self.loss_sum += loss.detach()
        self.optimizer.step()
        self.learner.update_moving_average()
        self.steps_summed += 1
        self.step += 1
        if self.step % _LOOK_EVERY == 0:
            self.require_finite()

    def mean_loss(self) -> float:
        """Return the mean loss of the steps since the last call.

        Raises:
            NonFiniteError: as `require_finite`.
        """
        self.require_finite()
        mean = float(self.loss_sum) / self.steps_summed
        self.loss_sum.zero_()
        self.steps_summed = 0
        return mean

    def require_finite(self) -> None:
        """Raise NonFiniteError where a loss or a weight is no finite number."""
        if not math.isfinite(self.loss_sum) or not all_finite(self.learner):
            raise NonFiniteError(
                self.step, "Lower the learning rate, and look for images that are not finite"
            )

    def _loss(self, images: Tensor) -> Tensor:
        # Views keep their precision, and the user's own augmentations are theirs alone.
        views = self.learner.draw_views(images.to(self.device, non_blocking=True))
        with torch.autocast(self.device.type, self.precision) if self.precision else nullcontext():
            loss: Tensor = self.model(*views)
        return loss

    def _synchronizing(self, wanted: bool) -> AbstractContextManager[None]:
        """Let processes exchange gradients with the last batch of a step only."""
        if wanted or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()


def images_of(batch: Any) -> Tensor:
    """Return the images [B,C,H,W] of a loader's batch: `x`, or the first of `(x, y, ...)`.

    Raises:
        UserError: there are none.
    """
    images = sample_image(batch)
    if not isinstance(images, Tensor) or images.ndim != 4:
        shape = f" {list(images.shape)}" if isinstance(images, Tensor) else ""
        raise UserError(
            f"a batch holds a {type(images).__name__}{shape}: it must be images [B,C,H,W], "
            "alone or first in a tuple"
        )
    return images
