"""Views per second where training makes them: on the GPU where there is one, from images that stay there.

    python benchmarks/views_on_device.py [--quick] [--out benchmarks/results/views-DEVICE.json]

The module that `byol pretrain` uses (`ResidentViews`): parameters drawn on the host, images picked by index,
two normalised views of each. On a GPU compiled, and not compiled beside it. "small": 32 px, batch 512;
"imagenet": 256 x 256 bytes to 224 px, batch 256. Floor: all bytes and floats, at the speed of a copy.
"""

import statistics
from itertools import count
from typing import Any

import torch
from floors import DEVICE, copy_bandwidth, fastest
from recorded import parser, record_as_asked

from byol.augment.presets import PRESETS
from byol.data.batches import Batch, BatchPlan
from byol.training.view_makers import ResidentViews
from byol.types import View

CASES = {"small": (32, 32, 512), "imagenet": (256, 224, 256)}
"""Side of the images, side of the views, batch."""


def views_per_second(preset: str, compiled: bool, rounds: int) -> float:
    """Return the median over rounds of a few batches."""
    side, size, batch = CASES[preset]
    plan = BatchPlan(2 * batch, batch)
    images = torch.randint(0, 256, (2 * batch, 3, side, side), dtype=torch.uint8)
    make = ResidentViews(images, PRESETS[preset], size, plan, compiled).to(DEVICE)
    positions = count()

    def one() -> tuple[View, View]:
        position = next(positions)
        made: tuple[View, View] = make(Batch(position, plan.indices(position).to(DEVICE)))
        return made

    return 2 * batch / statistics.median(fastest(one, times=3) for _ in range(rounds))


def floor(preset: str, bandwidth: float) -> float:
    """Return the views/s at which bytes and floats alone would go through."""
    side, size, _ = CASES[preset]
    return bandwidth / (3 * side * side / 2 + 4 * 3 * size * size)  # a byte is read once for two views


def main() -> None:
    options = parser(__doc__).parse_args()
    rounds, bandwidth = 1 if options.quick else 15, copy_bandwidth()
    cases: dict[str, Any] = {}
    for preset in CASES:
        ways = {"compiled": True, "not compiled": False} if DEVICE.type == "cuda" else {"not compiled": False}
        speeds = {way: round(views_per_second(preset, on, rounds)) for way, on in ways.items()}
        cases[preset] = {"views_per_second": speeds, "at_copy_speed": round(floor(preset, bandwidth))}
        print(preset, *(f"{way}: {speed:,} views/s" for way, speed in speeds.items()), sep="   ", end="   ")
        print(f"at most {cases[preset]['at_copy_speed']:,}")
    record_as_asked(options, f"views-{DEVICE.type}", "python benchmarks/views_on_device.py", {"cases": cases})


if __name__ == "__main__":
    main()
