"""Checkpoints: everything that resuming needs, as tensors and plain data, written whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from byol.errors import UserError
from byol.training.errors import NonFiniteError
from byol.training.module import Pretraining

_FORMAT = 1


def checkpoint_of(module: Pretraining, optimizer: Optimizer, config: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a run between two optimizer steps.

    Randomness needs no state: it is derived from the seed and the step.

    Raises:
        NonFiniteError: a loss since the last checkpoint, or a weight, is not finite.
    """
    if bool(module.watch.nonfinite) or not _all_finite(module):
        raise NonFiniteError(
            f"the loss or a weight is not finite at step {module.step}; the step is not saved. "
            "Lower --base-lr, lengthen --warmup, or use --precision fp32"
        )
    return {
        "format": _FORMAT,
        "step": module.step,
        "learner": module.learner.state_dict(),
        "watch": module.watch.state_dict(),
        "optimizer": optimizer.state_dict(),
        "config": config,
    }


def restore(module: Pretraining, optimizer: Optimizer, checkpoint: dict[str, Any]) -> None:
    """Put a checkpoint's state into a freshly built run."""
    module.learner.load_state_dict(checkpoint["learner"])
    module.watch.load_state_dict(checkpoint["watch"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    module.step = checkpoint["step"]


def save(checkpoint: dict[str, Any], file: Path) -> None:
    """Write to a temporary file beside `file`, flush it to the disk, rename it.

    Raises:
        UserError: the disk is full or not writable; the checkpoint that was there is intact.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            torch.save(checkpoint, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot save {file}: {error}. What was saved there before is intact") from error
    finally:
        temporary.unlink(missing_ok=True)


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


def _all_finite(module: Pretraining) -> bool:
    tensors = [tensor for tensor in module.learner.state_dict().values() if tensor.is_floating_point()]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
