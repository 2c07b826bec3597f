"""How large the views are, from the first micro-batch of a run to the last."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ViewSizes:
    """Sides of views in pixels: those of the end, and smaller ones before (progressive resizing).

    A network learns much of what there is to learn from small views, which cost their area.
    """

    final: int
    early: int | None = None
    early_stop: int = 0
    """The first position (`BatchPlan`) whose views have the final side."""

    def at(self, position: int) -> int:
        """Return the side of the views at a position."""
        return self.final if self.early is None or position >= self.early_stop else self.early

    def changes(self, position: int) -> Iterator[int]:
        """Yield this position and, where the side changes later, the position from which it is another."""
        yield position
        if self.at(position) != self.final:
            yield self.early_stop

    def work(self, position: int) -> float:
        """Return what all positions before this one cost, in positions of the final side."""
        early = 0 if self.early is None else min(position, self.early_stop)
        return position - early + early * ((self.early or 0) / self.final) ** 2
