"""From measured costs to what long runs would take on many GPUs, and what would run out first."""

from dataclasses import dataclass
from typing import Any

ASSUMED: dict[str, Any] = {
    "GPU": "H100 (SXM, 80 GB)",
    "operations": 0.4 * 989e12,
    "bytes": 0.8 * 3.35e12,
    "launch": 3e-6,
    "link_inside": 400e9,
    "link_between": 40e9,
    "latency_inside": 20e-6,
    "latency_between": 50e-6,
    "gpus_per_machine": 8,
    "cores_per_gpu": 16,
    "memory_per_gpu": 80e9,
    "host_memory": 2e12,
    "storage": 20e9,
    "file_bytes": 110e3,
    "batch": 4096,
}
"""A GPU's operations/s and bytes/s (shares of its data sheet), seconds to launch an operator, bytes/s of an
all-reduce and seconds a collective call inside a machine and between machines, and what a machine has."""


OVERHEADS = ("launches", "gradients", "batch statistics")
"""The parts of a step that do not shrink with a GPU's share of the batch."""


@dataclass(frozen=True)
class Goal:
    """Images, and how often each is seen."""

    name: str
    images: float
    epochs: int


GOALS = (
    Goal("ImageNet, 100 epochs", 1_281_167, 100),
    Goal("ImageNet, 1000 epochs", 1_281_167, 1000),
    Goal("a billion images, once", 1e9, 1),
)


def rates_of(scaling: dict[str, Any]) -> dict[str, float]:
    """Return a GPU's rates: measured ones where the file is of a GPU, else those assumed."""
    if scaling["gpus"]:
        model = scaling["model"]
        return {name: model[name] or float("inf") for name in ("operations", "bytes")} | {
            "fixed": model["fixed"]
        }
    launches = scaling["resnet50-224"]["per_step"]["operators"] * ASSUMED["launch"]
    # What is counted is float32: half as many bytes in bf16.
    return {"operations": ASSUMED["operations"], "bytes": 2 * ASSUMED["bytes"], "fixed": launches}


def step_parts(scaling: dict[str, Any], gpus: int) -> dict[str, float]:
    """Return the seconds of ResNet-50's parts of a step, one after the other: nothing overlaps."""
    work, rates = scaling["resnet50-224"], rates_of(scaling)
    share = ASSUMED["batch"] / gpus
    parts = max(1, round(share / 256))  # micro-batches
    operations, moved = (
        work["per_step"][name] + share * work["per_image"][name] for name in ("operations", "bytes")
    )
    inside = gpus <= ASSUMED["gpus_per_machine"]
    link = ASSUMED["link_inside" if inside else "link_between"]
    latency = ASSUMED["latency_inside" if inside else "latency_between"]
    # Batch statistics: forward and backward of two online passes, forward of two target passes.
    calls = 6 * work["batch_norms"] * parts
    several = gpus > 1
    return {
        "operations": operations / rates["operations"],
        "memory traffic": moved / rates["bytes"],
        "launches": parts * rates["fixed"],
        "gradients": several * 2 * (gpus - 1) / gpus * 4 * work["parameters"] / link,
        "batch statistics": several * calls * latency,
    }


def cifar_step(scaling: dict[str, Any], batch: int) -> dict[str, float] | None:
    """Return the seconds of the parts of ResNet-18's step at 32 px on one GPU.

    Operations and bytes follow from those counted at two batch sizes, in a line; None where there are no two.
    """
    counted = [row for row in scaling["steps"] if (row["backbone"], row["size"]) == ("resnet18", 32)]
    if len(counted) < 2:
        return None
    first, last = counted[0], counted[-1]
    along = (batch - first["batch"]) / (last["batch"] - first["batch"])
    work = {name: first[name] + along * (last[name] - first[name]) for name in ("operations", "bytes")}
    rates = rates_of(scaling)
    launches = rates["fixed"] if scaling["gpus"] else first["operators"] * ASSUMED["launch"]
    return {
        "operations": work["operations"] / rates["operations"],
        "memory traffic": work["bytes"] / rates["bytes"],
        "launches": launches,
    }


def pace(scaling: dict[str, Any], gpus: int) -> float:
    """Return images per second."""
    return float(ASSUMED["batch"] / sum(step_parts(scaling, gpus).values()))


def first_crowd(scaling: dict[str, Any]) -> int:
    """Return the smallest power of two of GPUs, each of which makes less than half of what one makes alone.

    At most as many as a batch has pairs of images.
    """
    gpus = 1
    while 2 * gpus < ASSUMED["batch"] and pace(scaling, gpus) / gpus >= pace(scaling, 1) / 2:
        gpus *= 2
    return gpus


def days(scaling: dict[str, Any], goal: Goal, gpus: int) -> float:
    """Return the days of training, start-up aside."""
    return goal.images * goal.epochs / pace(scaling, gpus) / 86400


def needs(scaling: dict[str, Any], gpus: int) -> dict[str, float]:
    """Return what a pace asks of everything else: cores for decoding a GPU, bytes/s of storage."""
    speed = pace(scaling, gpus)
    return {
        "cores_per_gpu": speed / scaling["data"]["decoded_and_cut_per_core"] / gpus,
        "storage": speed * ASSUMED["file_bytes"],
    }


def bookkeeping(scaling: dict[str, Any], images: float) -> dict[str, float]:
    """Return what one process needs to know about so many files: bytes, and seconds to list them.

    Beside the names, two epochs' orders of 8 bytes an image.
    """
    data = scaling["data"]
    return {
        "bytes": images * (data["bytes_per_image"] + 16),
        "seconds": images * data["seconds_per_image"],
    }


def largest_micro_batch(scaling: dict[str, Any]) -> float:
    """Return the images of ResNet-50 at 224 px that a GPU's memory holds; a bf16 byte is half a float's."""
    per_image = scaling["memory"]["resnet50-224"]["per_image"] / (1 if scaling["gpus"] else 2)
    states = 4 * 4 * scaling["resnet50-224"]["parameters"]  # weights, target, gradients, momentum
    return float((ASSUMED["memory_per_gpu"] - states) / per_image)
