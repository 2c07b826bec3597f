"""What training costs as it grows, and a model that predicts it: docs/scaling.md.

    python benchmarks/scaling.py [--quick] [--out benchmarks/results/scaling-DEVICE.json]

Measured: an optimizer step against image size, batch and network; memory against batch; a run's start-up,
pace and memory against the number of images; opening a folder; decoding on one core. The model
(`cost_model.py`) is fitted to some of the steps and checked on others. On a GPU the same command measures
its rates in bf16, and the page's predictions then follow from these instead of from assumptions.
"""

import math
import os
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from cost_model import Amount, Rates, StepWork, fitted, step_work
from floors import DEVICE, convolution_rate, copy_bandwidth, matrix_rate
from pictures import write_photographs
from recorded import parser, record_as_asked
from turns import Work, WorkEndedError
from works.networks import network

Step = tuple[str, int, int]
"""Network, image size, batch."""
_ON_GPU = DEVICE.type == "cuda"
PRECISION, TYPE = ("bf16", torch.bfloat16) if _ON_GPU else ("fp32", torch.float32)
FITTED: list[Step] = (
    [("resnet18", 32, 128), ("resnet18", 32, 1024), ("resnet18", 64, 256), ("resnet50", 224, 64)]
    if _ON_GPU
    else [
        ("resnet8_32", 32, 32),
        ("resnet8_32", 32, 256),
        ("resnet8_32", 96, 32),
        ("resnet18", 32, 16),
        ("resnet18", 64, 16),
    ]
)
CHECKED: list[Step] = (
    [("resnet18", 32, 512), ("resnet18", 96, 256), ("resnet50", 224, 256), ("resnet50", 128, 256)]
    if _ON_GPU
    else [
        ("resnet8_32", 64, 128),
        ("resnet8_16", 32, 256),
        ("resnet18", 32, 64),
        ("resnet18", 48, 32),
        ("resnet50", 32, 16),
    ]
)
MEMORY: dict[str, list[Step]] = {
    "fitted": [("resnet18", 32, 16), ("resnet18", 32, 64)],
    "checked": [("resnet18", 32, 32), ("resnet18", 32, 128)],
    "predicted": [("resnet50", 224, 2), ("resnet50", 224, 4)],
}
LARGE = ("resnet50", 224)
"""What long runs are predicted for."""
IMAGES = (1000, 10_000, 100_000, 600_000, 1_000_000)
FILES = (1000, 100_000)


def step_words(step: Step) -> list[str]:
    """Return the arguments of `works/step.py` for our step."""
    backbone, size, batch = step
    words = ["--library", "byol", "--backbone", backbone, "--size", str(size), "--batch", str(batch)]
    return [*words, "--precision", PRECISION]


def measured_steps(rounds: int) -> list[dict[str, Any]]:
    """Return every step's median seconds and its work; a step that dies is left out."""
    works: dict[tuple[str, int], StepWork] = {}
    rows = []
    for step in [*FITTED, *CHECKED]:
        backbone, size, batch = step
        if (backbone, size) not in works:
            works[backbone, size] = step_work(network(backbone, size)[0], size)
        try:
            with Work("step.py", *step_words(step)) as process:
                seconds = [process.once()["seconds"] for _ in range(rounds + 2)][2:]
        except WorkEndedError as error:
            print(f"left out: {error}")
            continue
        row = {"backbone": backbone, "size": size, "batch": batch, "fitted": step in FITTED}
        row |= asdict(works[backbone, size].of(batch)) | {"seconds": statistics.median(seconds)}
        rows.append(row)
        print(f"{backbone:11s}{size:4d} px  batch {batch:4d}{row['seconds']:9.4f} s")
    return rows


def model_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit the model to the rows that are for it; note in every row what it predicts."""
    amounts = [Amount(row["operations"], row["bytes"]) for row in rows]
    chosen = [index for index, row in enumerate(rows) if row["fitted"]]
    rates = fitted([amounts[index] for index in chosen], [rows[index]["seconds"] for index in chosen])
    for row, amount in zip(rows, amounts, strict=True):
        row["predicted"] = rates.seconds(amount)
        row["error"] = row["predicted"] / row["seconds"] - 1
        kind = "fitted " if row["fitted"] else "checked"
        print(
            f"{kind} {row['backbone']:11s}{row['size']:4d} px  batch {row['batch']:4d}  {row['error']:+.0%}"
        )
    return finite(rates)


def finite(rates: Rates) -> dict[str, Any]:
    """Return the rates for JSON: None for what costs nothing."""
    return {name: None if math.isinf(value) else value for name, value in asdict(rates).items()}


def measured_memory() -> dict[str, Any]:
    """Return bytes of steps beyond weights and the optimizer's, and a line through two of them."""
    rows = {}
    for kind, steps in MEMORY.items():
        rows[kind] = []
        for step in steps:
            with Work("step.py", *step_words(step), "--memory") as process:
                held = [process.once()["bytes"] for _ in range(2)][-1]
            rows[kind].append({"backbone": step[0], "size": step[1], "batch": step[2], "bytes": held})
    line, other = (through(*rows[kind]) for kind in ("fitted", "predicted"))
    for row in rows["checked"]:
        row["predicted"] = line["per_step"] + line["per_image"] * row["batch"]
        row["error"] = row["predicted"] / row["bytes"] - 1
        print(f"memory, batch {row['batch']}: {row['bytes'] / 2**20:.0f} MiB, predicted {row['error']:+.0%}")
    return {**rows, "line": line, "resnet50-224": other}


def through(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float]:
    """Return the line through two measurements."""
    per_image = (second["bytes"] - first["bytes"]) / (second["batch"] - first["batch"])
    return {"per_image": per_image, "per_step": first["bytes"] - per_image * first["batch"]}


def measured_runs(counts: tuple[int, ...], steps: int) -> list[dict[str, Any]]:
    """Return runs on so many images, each in a process of its own."""
    rows = []
    for count in counts:
        with Work("growth.py", "--images", str(count), "--steps", str(steps)) as process:
            rows.append({"images": count, **process.once()})
        print(
            f"{count:9,d} images: first step after {rows[-1]['start_up']:.2f} s, then "
            f"{1000 * rows[-1]['seconds_per_step']:.1f} ms a step, {rows[-1]['bytes'] / 2**20:,.0f} MiB"
        )
    return rows


def measured_folders(counts: tuple[int, ...]) -> dict[str, Any]:
    """Return what opening a folder costs an image, and how many images a core decodes and cuts a second."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        paths = write_photographs(Path(name) / "few", 64)
        with Work("growth.py", "--decode", str(paths[0].parent)) as process:
            rate = process.once()["images_per_second"]
        for count in counts:
            folder = Path(name) / str(count)
            folder.mkdir()
            for index in range(count):
                os.link(paths[index % 64], folder / f"image-{index:09}.jpg")
            with Work("growth.py", "--folder", str(folder)) as process:
                rows.append({"images": count, **process.once()})
        held = statistics.mean(path.stat().st_size for path in paths)
    few, many = rows[0], rows[-1]
    more = many["images"] - few["images"]
    return {
        "folders": rows,
        "seconds_per_image": (many["start_up"] - few["start_up"]) / more,
        "bytes_per_image": (many["bytes"] - few["bytes"]) / more,
        "decoded_and_cut_per_core": rate,
        "file_bytes": held,
    }


def main() -> None:
    options = parser(__doc__, "fewer rounds and images: a look, not a result").parse_args()
    result: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 1), "precision": PRECISION}
    result["rates"] = {
        "matrix": matrix_rate(TYPE),
        "convolution": convolution_rate(TYPE),
        "bytes": copy_bandwidth(),
    }
    result["steps"] = measured_steps(1 if options.quick else 5)
    result["model"] = model_of(result["steps"])
    result["memory"] = measured_memory()
    result["runs"] = measured_runs(IMAGES[:2] if options.quick else IMAGES, 30 if options.quick else 90)
    result["data"] = measured_folders((100, 2000) if options.quick else FILES)
    large = step_work(network(*LARGE)[0], LARGE[1])
    result["resnet50-224"] = asdict(large)
    record_as_asked(options, f"scaling-{DEVICE.type}", "python benchmarks/scaling.py", result)


if __name__ == "__main__":
    main()
