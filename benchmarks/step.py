"""One optimizer step: seconds and peak memory, byol beside lightly and byol-pytorch.

    python benchmarks/step.py [--case NAME] [--quick] [--out benchmarks/results/step-DEVICE.json]

ResNet-18 on 32 px, fp32, batch 64 where there is no GPU; on a GPU bf16, batch 512, and ResNet-50 on 224 px
at batch 256. All take the same two ready-made views through the same network and heads with the same
optimizer (`works/step.py`). lightly passes the views one by one, as byol does by default; byol-pytorch
concatenates them, and is compared with byol's `concatenate_views` and with its default. Beside lightly as it
comes stands lightly in our memory layout (channels last), which its user would have to ask for. On a GPU
byol is compiled, as it is in `byol pretrain`; there "not compiled" stands beside it, and lightly compiled.
On a CPU freed memory is kept for the next step, as `byol pretrain` does; "a loop of one's own" is without.

Memory is what a step needs beyond weights, optimizer state and views: activations and gradients. Who dies
of too little memory is recorded as null, and the others go on; every case is recorded as soon as it is there.
"""

import os
from collections.abc import Collection
from typing import Any

import torch
from cost_model import bytes_to_hold, step_work
from floors import DEVICE, convolution_rate, copy_bandwidth, matrix_rate, step_operations
from recorded import earlier_cases, parser, record_as_asked
from turns import Work, in_turns, peer_versions, peers_installed, ratio, share, summary

from byol.core.named_backbone import build_backbone
from byol.training.compilation import missing_for_compiling

_ON_GPU = DEVICE.type == "cuda"
_COMPILED = ["--compile"] if _ON_GPU and missing_for_compiling() is None else []
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
    theirs = {name: own for name, own in THEIRS.items() if name in names}
    if theirs and peers_installed():
        found |= {name: Work("step.py", *own, *same, peers=True) for name, own in theirs.items()}
    return found


def times(case: str, rounds: int) -> dict[str, Any]:
    """Return the seconds of a step, and the shares of the others' that ours takes."""
    answers = in_turns(works(case, OURS | THEIRS), rounds)
    taken = {name: [answer["seconds"] for answer in found] for name, found in answers.items()}
    values = summary(taken)
    concatenated = taken["byol, views concatenated"]
    if "byol-pytorch" in taken:
        share = ratio(concatenated, taken["byol-pytorch"])
        values["byol_concatenated_takes"] = {"byol-pytorch": share}
    return values


def memories(case: str, names: Collection[str]) -> dict[str, Any]:
    """Return the most bytes that a step of each of these contestants needs.

    Beside it ours over what both directions at once need. Where activations are few beside gradients, which
    both need, the share is larger: so once more at four times the batch.
    """
    batch, size, precision = CASES[case]
    held = bytes_to_hold(build_backbone(case.split("-")[0], size, 3).net, size, batch, precision)
    needed = step_bytes(case, names)
    return {
        **compared_bytes(needed),
        "bytes_to_hold": held,
        "share_of_floor": share(held, needed["byol"]),
        "at_four_times_the_batch": compared_bytes(
            step_bytes(case, ("byol", TOGETHER), "--batch", str(4 * batch))
        ),
    }


def compared_bytes(needed: dict[str, int | None]) -> dict[str, Any]:
    """Return what each needs, and ours over what both directions at once need."""
    over = share(needed["byol"], needed[TOGETHER])
    return {"bytes_of_the_step": needed, "byol_over_both_directions": over}


def step_bytes(case: str, names: Collection[str], *more: str) -> dict[str, int | None]:
    """Return the most bytes of a step of each of these contestants, one alone at a time; None: it died."""
    found: dict[str, int | None] = {}
    for name in names:
        answers = in_turns(works(case, (name,), "--memory", *more), rounds=1, warm_up=1)[name]
        found[name] = answers[0]["bytes"] if answers else None
    return found


def floor(case: str, rates: dict[str, float]) -> dict[str, float]:
    """Return the seconds of a step's operations at the best measured rate, of its bytes at copy speed.

    The bytes are what each operator reads and writes, in float32 (half of it in bf16): a fused step moves
    fewer, so that these seconds are no floor.
    """
    batch, size, precision = CASES[case]
    backbone = build_backbone(case.split("-")[0], size, 3)
    operations = batch * step_operations(backbone.net, size, hidden=4096)
    moved = step_work(backbone.net, size).of(batch).bytes * (0.5 if precision == "bf16" else 1.0)
    return {
        "bytes_unfused": moved,
        "seconds_at_copy_speed_unfused": moved / rates["bytes"],
        "operations": operations,
        "seconds_at_best_rate": operations / max(rates["matrix"], rates["convolution"]),
    }


def main() -> None:
    options = parser(__doc__, cases=CASES).parse_args()
    name = f"step-{DEVICE.type}"
    result: dict[str, Any] = {
        "peers": peer_versions(),
        "load_before": round(os.getloadavg()[0], 1),
        "cases": earlier_cases(options, name),
    }
    for case in [options.case] if options.case else CASES:
        batch, size, precision = CASES[case]
        type_ = torch.bfloat16 if precision == "bf16" else torch.float32
        rates = {
            "matrix": matrix_rate(type_),
            "convolution": convolution_rate(type_),
            "bytes": copy_bandwidth(),
        }
        values = times(case, 3 if options.quick else 9) | floor(case, rates)
        values |= {"batch": batch, "size": size, "precision": precision, "rates": rates}
        values["share_of_floor"] = share(values["seconds_at_best_rate"], values["seconds"]["byol"])
        result["cases"][case] = values
        record_as_asked(options, name, "python benchmarks/step.py", result)  # memory may be long in coming
        values["memory"] = memories(case, values["seconds"])
        tell(case, values)
        record_as_asked(options, name, "python benchmarks/step.py", result)


def tell(case: str, values: dict[str, Any]) -> None:
    """Print one case."""
    print(f"{case}, batch {values['batch']}, {values['precision']}")
    for name, taken in values["seconds"].items():
        takes, held = values["byol_takes"].get(name), values["memory"]["bytes_of_the_step"][name]
        time = f"{taken:9.4f} s" if taken else "       died"
        memory = f"{held / 2**20:9.0f} MiB" if held else "         died"
        print(f"  {name:34s}{time}{memory}" + (f"   byol takes {takes:.2f} of it" if takes else ""))
    best, work = (
        max(values["rates"]["matrix"], values["rates"]["convolution"]) / 1e9,
        values["operations"] / 1e9,
    )
    print(
        f"  at most: {values['seconds_at_best_rate']:.4f} s for {work:.0f} GFLOP at the "
        f"best rate measured, {best:.0f} GFLOP/s; byol reaches {values['share_of_floor'] or 0:.2f} of that"
    )
    print(
        f"  bytes, unfused, at the speed of a copy: {values['seconds_at_copy_speed_unfused']:.4f} s; "
        f"{values['memory']['bytes_to_hold'] / 2**20:.0f} MiB must be held"
    )


if __name__ == "__main__":
    main()
