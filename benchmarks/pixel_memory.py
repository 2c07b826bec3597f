"""Memory and time of what pixel learners compute between places, ours beside a broadcast cosine similarity.

    python benchmarks/pixel_memory.py [--quick] [--out benchmarks/results/pixel_memory.json]

PixPro's loss, PixContrast's, and pixel propagation: forward and backward of one direction, 32 images, 256
channels, maps of 7 x 7 and of 14 x 14 places. Others compute `F.cosine_similarity` of two maps broadcast to
[B,C,N,N] (`works/pixels.py`); both must give the same numbers. Memory is the most that a term needs beyond
the maps that go in: intermediate results, what is kept for backward, and the gradient. Broadcast maps want
8 GB of it.
"""

import os
from typing import Any

from floors import DEVICE
from recorded import parser, record_as_asked
from turns import Work, in_turns, summary

BATCH, WIDTH, SIDES = 32, 256, (7, 14)
TERMS = {"consistency": "PixPro's loss", "contrast": "PixContrast's loss", "propagation": "pixel propagation"}
OURS, BROADCAST = "byol", "broadcast"


def measured(term: str, side: int, rounds: int) -> dict[str, Any]:
    """Return seconds and bytes of a term by both ways, and how they compare."""
    same = ["--term", term, "--side", str(side), "--batch", str(BATCH), "--width", str(WIDTH)]
    answers = in_turns(
        {whose: Work("pixels.py", "--whose", whose, *same) for whose in (OURS, BROADCAST)},
        rounds,
        warm_up=int(DEVICE.type == "cuda"),  # there its libraries take memory of their own in the first call
    )
    values = [found[0]["value"] for found in answers.values() if found]
    assert max(values) - min(values) < 1e-3 * abs(values[0]), f"{term}: {values}"
    held = {
        whose: max((answer["bytes"] for answer in found), default=None) for whose, found in answers.items()
    }
    ours, theirs = held[OURS], held[BROADCAST]
    return {
        "term": term,
        "side": side,
        "bytes": held,
        "times_less_memory": round(theirs / ours, 1) if ours and theirs else None,
        **summary({whose: [answer["seconds"] for answer in found] for whose, found in answers.items()}),
    }


def main() -> None:
    options = parser(__doc__).parse_args()
    result: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 1), "batch": BATCH, "width": WIDTH}
    result["cases"] = []
    for side in SIDES:
        for term in TERMS:
            result["cases"].append(measured(term, side, 1 if options.quick else 2))
            tell(result["cases"][-1])
    record_as_asked(options, f"pixel_memory-{DEVICE.type}", "python benchmarks/pixel_memory.py", result)


def tell(case: dict[str, Any]) -> None:
    """Print one case."""
    print(f"{TERMS[case['term']]}, {case['side']} x {case['side']} places")
    for whose, taken in case["seconds"].items():
        if taken is None:
            print(f"  {whose:12s}died")
            continue
        print(f"  {whose:12s}{case['bytes'][whose] / 2**20:9.1f} MiB{taken:9.4f} s")
    share = case["byol_takes"][BROADCAST]
    if share:
        print(f"  {case['times_less_memory']:.0f} times less memory, {share:.3f} of the time")


if __name__ == "__main__":
    main()
