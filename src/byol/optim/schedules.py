"""Schedules as plain functions of the optimizer step; Python floats, so exact and free of the device."""

import math


def warmup_cosine(
    step: int, warmup_steps: int, total_steps: int, start: float = 0.0, end: float = 0.0
) -> float:
    """Return the factor on the peak learning rate at optimizer step `step` (0-based).

    Linear from `start` over the warm-up, then half a cosine to `end` at `total_steps`, without restarts.
    Both are 0 in BYOL (section 3.3; `schedules.py` of the official code); PixPro's code has other ones
    (`contrast/lr_scheduler.py`).
    """
    if step < warmup_steps:
        return start + (1 - start) * step / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def cosine_tau(step: int, base: float, total_steps: int | None) -> float:
    """Return the target's decay rate at optimizer step `step` (0-based).

    tau_k = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2 (BYOL section 3.3); constant without K.
    """
    if total_steps is None:
        return base
    progress = min(step / total_steps, 1.0)
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2
