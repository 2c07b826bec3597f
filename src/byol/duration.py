"""Durations in the unit that suits the reader, resolved to optimizer steps once."""

import math
import re

from byol.errors import UserError

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)(ep|st|%)?")


def steps_of(text: str, name: str, steps_per_epoch: int, total_steps: int | None = None) -> int:
    """Return the optimizer steps of a length of training, rounded; at least 1 for anything above 0.

    Args:
        text: "100" or "100ep" (epochs), "500st" (steps) or "5%" (of the run).
        name: of the setting, for the message.
        steps_per_epoch: how many steps an epoch has.
        total_steps: of the run; None where it is not known yet.

    Raises:
        UserError: it is none of these, or a share where the length of the run is not known.
    """
    match = _PATTERN.fullmatch(str(text).strip())
    if match is None:
        raise UserError(f"{name} is '{text}': give epochs (100 or 100ep), steps (500st) or a share (5%)")
    value, unit = float(match[1]), match[2] or "ep"
    if value == 0:
        return 0
    if unit == "%" and total_steps is None:
        raise UserError("the length of a run cannot be a share of itself: give epochs or steps")
    units = {"st": 1, "ep": steps_per_epoch, "%": (total_steps or 0) / 100}
    return max(1, math.floor(value * units[unit] + 0.5))
