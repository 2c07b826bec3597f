"""Durations in the unit that suits the reader, resolved to optimizer steps once."""

import math
import re
from dataclasses import dataclass
from typing import Literal, Self

from byol.errors import UserError

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)(ep|st|%)?")


@dataclass(frozen=True)
class Duration:
    """A length of training: epochs, optimizer steps, or a share of the run."""

    value: float
    unit: Literal["ep", "st", "%"]

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read "100" or "100ep" (epochs), "500st" (steps) or "5%" (of the run).

        Args:
            text: what the user wrote.
            name: of the setting, for the message.

        Raises:
            UserError: it is none of these.
        """
        match = _PATTERN.fullmatch(str(text).strip())
        if match is None:
            raise UserError(f"{name} is '{text}': give epochs (100 or 100ep), steps (500st) or a share (5%)")
        unit = match[2] or "ep"
        assert unit in ("ep", "st", "%")
        return cls(float(match[1]), unit)  # type: ignore[arg-type]

    def steps(self, steps_per_epoch: int, total_steps: int | None = None) -> int:
        """Return the number of optimizer steps, rounded; at least 1 for anything above 0."""
        if self.value == 0:
            return 0
        if self.unit == "%" and total_steps is None:
            raise UserError("the length of a run cannot be a share of itself: give epochs or steps")
        units = {"st": 1, "ep": steps_per_epoch, "%": (total_steps or 0) / 100}
        return max(1, math.floor(self.value * units[self.unit] + 0.5))
