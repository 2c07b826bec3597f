"""The settings of `byol demo`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of `byol demo`."""

    out: str | None = None
    """Run directory, which must not exist. Default: the next free runs/demo-N."""
    seed: int = 0
    """Of weights, order and views."""
    debug: bool = False
    """Show the traceback of an error."""
