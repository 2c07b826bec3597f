"""One optimizer step: seconds and peak memory, byol beside lightly and byol-pytorch.

    python benchmarks/step.py [--quick] [--out benchmarks/results/step.json]

ResNet-18 on 32 px, fp32, batch 64 where there is no GPU; on a GPU bf16, batch 512, and ResNet-50 on 224 px
at batch 256. All take the same two ready-made views through the same network and heads with the same
optimizer (`works/step.py`). lightly passes the views one by one, as byol does by default; byol-pytorch
concatenates them, and is compared with byol's `concatenate_views` and with its default. Beside lightly as it
comes stands lightly in our memory layout (channels last), which its user would have to ask for. On a GPU
byol is compiled, as it is in `byol pretrain`; there "not compiled" stands beside it, and lightly compiled.
On a CPU freed memory is kept for the next step, as `byol pretrain` does; "a loop of one's own" is without.

Memory is what a step needs beyond weights, optimizer state and views: activations and gradients.
"""

import os
import statistics
from collections.abc import Collection
from importlib.util import find_spec
from typing import Any

import torch
from floors import DEVICE, convolution_rate, copy_bandwidth, matrix_rate, step_operations
from recorded import parser, record_as_asked
from turns import Work, in_turns, peer_versions, peers_installed, summary

from byol.core.named_backbone import build_backbone

_ON_GPU = DEVICE.type == "cuda"
_COMPILED = ["--compile"] if _ON_GPU and find_spec("triton") else []
CASES = (
    {"resnet18-32": (512, 32, "bf16"), "resnet50-224": (256, 224, "bf16")}
    if _ON_GPU
    else {"resnet18-32": (64, 32, "fp32")}
)
TOGETHER = "byol, both directions at once"
OURS = {
    "byol": _COMPILED,
    **({"byol, not compiled": []} if _COMPILED else {}),
    "byol, in a loop of one's own": ["--own-loop", *_COMPILED],
    TOGETHER: ["--directions", "together", *_COMPILED],
    "byol, views concatenated": ["--directions", "concatenated", *_COMPILED],
}
THEIRS = {
    "lightly": ["--library", "lightly"],
    "lightly, channels last": ["--library", "lightly", "--channels-last"],
    **(
        {"lightly, channels last, compiled": ["--library", "lightly", "--channels-last", *_COMPILED]}
        if _COMPILED
        else {}
    ),
    "byol-pytorch": ["--library", "byol-pytorch"],
}


def works(case: str, names: Collection[str], *more: str) -> dict[str, Work]:
    """Return a process for each of these contestants."""
    batch, size, precision = CASES[case]
    same = ["--backbone", case.split("-")[0], "--size", str(size), "--precision", precision]
    same += ["--batch", str(batch), *more]
    ours = {name: ["--library", "byol", *own] for name, own in OURS.items() if name in names}
    found = {name: Work("step.py", *own, *same) for name, own in ours.items()}
    if peers_installed():
        theirs = {name: own for name, own in THEIRS.items() if name in names}
        found |= {name: Work("step.py", *own, *same, peers=True) for name, own in theirs.items()}
    return found


def times(case: str, rounds: int) -> dict[str, Any]:
    """Return the seconds of a step, and the shares of the others' that ours takes."""
    answers = in_turns(works(case, OURS | THEIRS), rounds)
    taken = {name: [answer["seconds"] for answer in found] for name, found in answers.items()}
    values = summary(taken)
    concatenated = taken["byol, views concatenated"]
    if "byol-pytorch" in taken:
        ratios = map(float.__truediv__, concatenated, taken["byol-pytorch"])
        values["byol_concatenated_takes"] = {"byol-pytorch": round(statistics.median(ratios), 3)}
    return values


def memories(case: str) -> dict[str, Any]:
    """Return the most bytes that a step needs, and ours over what both directions at once need.

    Where activations are few beside gradients, which both need, the share is larger: so once more at four
    times the batch.
    """
    needed = step_bytes(case, OURS | THEIRS)
    larger = step_bytes(case, ("byol", TOGETHER), "--batch", str(4 * CASES[case][0]))
    return {
        "bytes_of_the_step": needed,
        "byol_over_both_directions": round(needed["byol"] / needed[TOGETHER], 3),
        "at_four_times_the_batch": {
            "bytes_of_the_step": larger,
            "byol_over_both_directions": round(larger["byol"] / larger[TOGETHER], 3),
        },
    }


def step_bytes(case: str, names: Collection[str], *more: str) -> dict[str, int]:
    """Return the most bytes of a step of each of these contestants."""
    answers = in_turns(works(case, names, "--memory", *more), rounds=1, warm_up=1)
    return {name: found[0]["bytes"] for name, found in answers.items()}


def floor(case: str, rates: dict[str, float]) -> dict[str, float]:
    """Return the seconds that the operations of a step take at the best measured rate."""
    batch, size, _ = CASES[case]
    backbone, _ = build_backbone(case.split("-")[0], size, 3)
    operations = batch * step_operations(backbone.net, size, hidden=4096)
    return {
        "operations": operations,
        "seconds_at_best_rate": operations / max(rates["matrix"], rates["convolution"]),
    }


def main() -> None:
    options = parser(__doc__).parse_args()
    result: dict[str, Any] = {
        "peers": peer_versions(),
        "load_before": round(os.getloadavg()[0], 1),
        "cases": {},
    }
    for case, (batch, size, precision) in CASES.items():
        type_ = torch.bfloat16 if precision == "bf16" else torch.float32
        rates = {
            "matrix": matrix_rate(type_),
            "convolution": convolution_rate(type_),
            "bytes": copy_bandwidth(),
        }
        values = times(case, 3 if options.quick else 9) | floor(case, rates)
        values |= {"batch": batch, "size": size, "precision": precision, "rates": rates}
        values["share_of_floor"] = round(values["seconds_at_best_rate"] / values["seconds"]["byol"], 3)
        values["memory"] = memories(case)
        result["cases"][case] = values
        tell(case, values)
    record_as_asked(options, f"step-{DEVICE.type}", "python benchmarks/step.py", result)


def tell(case: str, values: dict[str, Any]) -> None:
    """Print one case."""
    print(f"{case}, batch {values['batch']}, {values['precision']}")
    for name, taken in values["seconds"].items():
        share = values["byol_takes"].get(name)
        held = values["memory"]["bytes_of_the_step"][name] / 2**20
        print(
            f"  {name:32s}{taken:9.4f} s{held:9.0f} MiB"
            + (f"   byol takes {share:.2f} of it" if share else "")
        )
    best, work = (
        max(values["rates"]["matrix"], values["rates"]["convolution"]) / 1e9,
        values["operations"] / 1e9,
    )
    print(
        f"  at most: {values['seconds_at_best_rate']:.4f} s for {work:.0f} GFLOP at the "
        f"best rate measured, {best:.0f} GFLOP/s; byol reaches {values['share_of_floor']:.2f} of that"
    )


if __name__ == "__main__":
    main()
