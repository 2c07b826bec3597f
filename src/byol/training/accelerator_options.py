"""What `BYOLTrainer` takes over from the settings of accelerate, which itself is not needed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from byol.errors import UserError, require_known

_PRECISIONS = {"no": None, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class AcceleratorOptions:
    """Arguments of accelerate's Accelerator, with their meaning there."""

    mixed_precision: str | None = None
    """"no" or "bf16"; None: what `accelerate launch` was told, else "no"."""
    gradient_accumulation_steps: int = 1
    """Batches per optimizer step."""
    cpu: bool = False
    """Stay on the CPU where there are GPUs; so does `accelerate launch --cpu`."""

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> "AcceleratorOptions":
        """Read `accelerator_kwargs`, and what `accelerate launch` left in the environment.

        Raises:
            UserError: there is a keyword or a value that means nothing here.
        """
        names = [field.name for field in fields(cls)]
        for name in keywords:
            require_known("keyword in accelerator_kwargs", name, names)
        options = cls(**keywords)
        precision = options.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if precision not in _PRECISIONS:
            raise UserError(f"mixed_precision is '{precision}', it must be one of {', '.join(_PRECISIONS)}")
        if options.gradient_accumulation_steps < 1:
            raise UserError(
                f"gradient_accumulation_steps is {options.gradient_accumulation_steps}, not 1 or more"
            )
        return cls(precision, options.gradient_accumulation_steps, options.cpu or _launched_on_cpu())

    @property
    def autocast_type(self) -> torch.dtype | None:
        """The type for autocast; None for none."""
        return _PRECISIONS[self.mixed_precision or "no"]


def _launched_on_cpu() -> bool:
    return os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1", "yes")
