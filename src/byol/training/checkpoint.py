"""Checkpoints: everything that resuming needs, as tensors and plain data, written whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from byol.errors import UserError
from byol.training.errors import NonFiniteError
from byol.training.module import Pretraining
from byol.training.preparation import PreparedData
from byol.weights import all_finite

_FORMAT = 1


def checkpoint_of(
    module: Pretraining,
    optimizer: Optimizer,
    config: dict[str, Any],
    data: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Return the state of a run between two optimizer steps, so many seconds of training after its start.

    Randomness needs no state: it is derived from the seed and the step.

    Raises:
        NonFiniteError: a loss since the last checkpoint, or a weight, is not finite.
    """
    if bool(module.watch.nonfinite) or not all_finite(module.learner):
        raise NonFiniteError(module.step)
    return {
        "format": _FORMAT,
        "step": module.step,
        "learner": module.learner.state_dict(),
        "watch": module.watch.state_dict(),
        "optimizer": optimizer.state_dict(),
        "config": config,
        "data": data,
        "seconds": seconds,
        "online_probe": None if module.online_probe is None else module.online_probe.state(),
    }


def check_data(checkpoint: dict[str, Any], data: PreparedData) -> None:
    """Raise UserError unless the images are those that the run was trained on: order and schedule
    follow from them."""
    before, now = checkpoint["data"], data.identity()
    if before != now:
        raise UserError(
            f"the data have changed since the run was saved ({before['images']} images then, "
            f"{now['images']} now, or other names): restore them, or start a new run"
        )


def restore(module: Pretraining, optimizer: Optimizer, checkpoint: dict[str, Any]) -> None:
    """Put a checkpoint's state into a freshly built run."""
    try:
        module.learner.load_state_dict(checkpoint["learner"])
    except RuntimeError as error:
        raise UserError(f"the checkpoint does not fit the network: {error}") from error
    module.watch.load_state_dict(checkpoint["watch"])
    optimizer.load_state_dict(_computed_as(optimizer, checkpoint["optimizer"]))
    if module.online_probe is not None:
        module.online_probe.restore(checkpoint["online_probe"])
    module.step = checkpoint["step"]


def _computed_as(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's saved state with this one's way to compute a step, which goes by its device."""
    ways = [{"fused": group["fused"]} if "fused" in group else {} for group in optimizer.param_groups]
    groups = [saved | way for saved, way in zip(state["param_groups"], ways, strict=True)]
    return {**state, "param_groups": groups}


def load(file: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code in it.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if not file.is_file():
        raise UserError(f"there is no checkpoint to resume from: {file} is missing")
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{file} is damaged, or no checkpoint: it cannot be read") from error
    if checkpoint.get("format") != _FORMAT:
        raise UserError(f"{file} was written by another version (format {checkpoint.get('format')})")
    return checkpoint
