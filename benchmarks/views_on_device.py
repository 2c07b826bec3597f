"""Views per second where training makes them: on the GPU where there is one, from images that stay there.

    python benchmarks/views_on_device.py [--case NAME] [--quick] [--out benchmarks/results/views-DEVICE.json]

The module that `byol pretrain` uses (`ResidentViews`): parameters drawn on the host, images picked by index,
two normalised views of each. On a GPU compiled, and not compiled beside it, in turns; a turn is several
batches one behind the other, and one wait for all of them. "small": 32 px, batch 512; "imagenet": 256 x 256
bytes to 224 px, batch 256. Floors: all bytes and floats, at the speed of a copy; the matrix products alone.
"""

import statistics
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from floors import DEVICE, copy_bandwidth, matrix_rate, wait
from recorded import earlier_cases, parser, record_as_asked
from torch.utils.flop_counter import FlopCounterMode
from turns import share

from byol.augment.presets import PRESETS
from byol.augment.transfer import sent_numbers
from byol.data.batches import Batch, BatchPlan
from byol.training.view_makers import ResidentViews

CASES = {"small": (32, 32, 512), "imagenet": (256, 224, 256)}
"""Side of the images, side of the views, batch."""
_ON_GPU = DEVICE.type == "cuda"
QUEUED, ROUNDS = (20, 15) if _ON_GPU else (4, 5)
"""Batches of a turn, and turns."""
WAYS = {"compiled": True, "not compiled": False} if _ON_GPU else {"not compiled": False}
Make = Callable[[], object]


def maker(preset: str, compiled: bool) -> Make:
    """Return a function that makes the views of one batch after the other."""
    side, size, batch = CASES[preset]
    plan = BatchPlan(2 * batch, batch)
    images = torch.randint(0, 256, (2 * batch, 3, side, side), dtype=torch.uint8)
    make = ResidentViews(images, PRESETS[preset], size, plan, compiled).to(DEVICE)
    positions = count()

    def one() -> object:
        position = next(positions)
        return make(Batch(position, sent_numbers(plan.indices(position), DEVICE)))

    return one


def makers(preset: str) -> dict[str, Make]:
    """Return the ways that work here, each after its first batch."""
    found: dict[str, Make] = {}
    for way, compiled in WAYS.items():
        try:
            one = maker(preset, compiled)
            one()
        except Exception as error:  # whatever a compiler may raise: the other way is measured all the same
            print(f"{preset}, {way}, is left out: {error}")
        else:
            found[way] = one
    return found


def turn(one: Make) -> float:
    """Return the seconds of the batches of a turn, from an idle device to an idle device."""
    wait()
    began = time.perf_counter()
    for _ in range(QUEUED):
        one()
    wait()
    return time.perf_counter() - began


def views_per_second(preset: str, rounds: int) -> dict[str, int | None]:
    """Return the median over turns, after one that warms up; None for a way that does not work."""
    ready = makers(preset)
    taken: dict[str, list[float]] = {way: [] for way in ready}
    for _ in range(1 + rounds):
        for way, one in ready.items():
            taken[way].append(turn(one))
    made = 2 * CASES[preset][2] * QUEUED
    return {way: round(made / statistics.median(taken[way][1:])) if way in ready else None for way in WAYS}


def at_copy_speed(preset: str, bandwidth: float) -> float:
    """Return the views/s at which bytes and floats alone would go through."""
    side, size, _ = CASES[preset]
    return bandwidth / (3 * side * side / 2 + 4 * 3 * size * size)  # a byte is read once for two views


def products_alone(preset: str, rate: float) -> float:
    """Return the views/s at which the matrix products alone would go through, at the best rate measured."""
    one = maker(preset, compiled=False)
    with FlopCounterMode(display=False) as counter:
        one()
    return 2 * CASES[preset][2] * rate / counter.get_total_flops()


def main() -> None:
    options = parser(__doc__, cases=CASES).parse_args()
    name = f"views-{DEVICE.type}"
    cases: dict[str, Any] = earlier_cases(options, name)
    bandwidth, rate = copy_bandwidth(), matrix_rate()
    for preset in [options.case] if options.case else CASES:
        speeds = views_per_second(preset, 1 if options.quick else ROUNDS)
        floors = {
            "at_copy_speed": round(at_copy_speed(preset, bandwidth)),
            "products_alone": round(products_alone(preset, rate)),
        }
        best = max((speed for speed in speeds.values() if speed), default=None)
        reached = share(best, min(floors.values()))
        cases[preset] = {"views_per_second": speeds, **floors, "share_of_floor": reached}
        cases[preset] |= dict(zip(("image_side", "view_side", "batch"), CASES[preset], strict=True))
        print(
            preset, *(f"{way}: {speed or 0:,} views/s" for way, speed in speeds.items()), sep="   ", end="   "
        )
        print(f"at most {min(floors.values()):,}, of which {reached or 0:.0%}")
        record_as_asked(options, name, "python benchmarks/views_on_device.py", {"cases": cases})


if __name__ == "__main__":
    main()
