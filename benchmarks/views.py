"""Views per second on one core: byol beside lightly's BYOLTransform and torchvision v2.

Two pieces of work, each of them done by all in turns, each on one thread (`works/views.py`):

- small: a resident batch of 32x32 uint8 images to two normalised float views of preset "small";
- imagenet: 500x375 JPEG files to two normalised float 224x224 views of preset "imagenet", decoding
  included. The files are smooth random colours plus noise, quality 90, made in a temporary folder.

    python benchmarks/views.py [--quick] [--out benchmarks/results/views.json]

As it ships lightly does a little less: a bilinear crop and an approximate blur, both on bytes. torchvision
works on bytes too; ours works on floats after the crop. For "small" lightly's blur is switched off, and
torchvision has none.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from floors import copy_bandwidth, fastest
from pictures import pictures, write_photographs
from recorded import parser, record_as_asked
from turns import Work, in_turns, limits, middle, peer_versions, peers_installed, ratio, share

from byol.data.decode import decode

BATCH = {"small": 512, "imagenet": 32}


def measured(preset: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Run all in turns; return the medians in views/s, their ranges and the ratios to ours."""
    libraries = ["byol", "torchvision", *(["lightly"] if peers_installed() else [])]
    arguments = ("--preset", preset, "--folder", str(folder))
    works = {
        name: Work("views.py", "--library", name, *arguments, peers=name == "lightly") for name in libraries
    }
    answers = in_turns(works, rounds, warm_up=1)
    count = 2 * BATCH[preset]
    speeds = {name: [count / answer["seconds"] for answer in found] for name, found in answers.items()}
    return {
        "views_per_second": {name: middle(found, 1) for name, found in speeds.items()},
        "slowest_and_fastest": {name: limits(found, 1) for name, found in speeds.items()},
        "byol_over": {
            name: ratio(speeds["byol"], found, 2) for name, found in speeds.items() if name != "byol"
        },
        "rounds": rounds,
    }


def floors(paths: list[Path]) -> dict[str, float]:
    """Return views/s that our way of making them cannot exceed, each from one part of the work alone.

    For "small": bytes in and out at the speed of a copy, and the crop's two matrix products; for
    "imagenet": the same bytes, and decoding, once for two views.
    """
    torch.set_num_threads(1)
    bandwidth = copy_bandwidth(torch.device("cpu"))
    bytes_per_view = 32 * 32 * 3 * (1 / 2 + 4)  # each byte is read once for two views, each float written
    # Decoding writes the bytes, cutting reads them; both are for two views.
    bytes_per_large_view = 500 * 375 * 3 + 224 * 224 * 3 * 4
    matrices = torch.rand(128, 3 * 32, 32)  # as many as fit the cache
    weights = torch.rand(128, 32, 32)
    products = fastest(lambda: torch.bmm(matrices, weights), times=20)
    decoding = fastest(lambda: [decode(path) for path in paths], times=3)
    return {
        "small_bytes_at_copy_speed": round(bandwidth / bytes_per_view),
        "small_crop_products_alone": round(128 / (2 * products)),
        "imagenet_bytes_at_copy_speed": round(bandwidth / bytes_per_large_view),
        "imagenet_decoding_alone": round(2 * len(paths) / decoding, 1),
    }


def share_of_floor(case: str, result: dict[str, Any]) -> float | None:
    """Return how much of the smallest of a case's floors ours reaches."""
    ours = result[case]["views_per_second"]["byol"]
    smallest = min(value for name, value in result["floors"].items() if name.startswith(case))
    return share(ours, smallest)


def print_speeds(name: str, speeds: dict[str, Any]) -> None:
    """Print one line for each library: views/s and how many times as fast ours is."""
    for library, value in speeds["views_per_second"].items():
        if value is None:
            continue
        ratio = speeds["byol_over"].get(library)
        print(f"{name:9s}{library:12s}{value:10,.0f} views/s" + (f"   byol {ratio:.2f}x" if ratio else ""))


def main() -> None:
    options = parser(__doc__).parse_args()
    result: dict[str, Any] = {
        "peers": peer_versions(),
        "threads": 1,
        "load_before": round(os.getloadavg()[0], 1),
        "seed": 0,
        "batch": BATCH,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "small.npy", pictures(BATCH["small"], 32, 32).numpy())
        paths = write_photographs(folder, BATCH["imagenet"])
        result["small"] = measured("small", folder, 3 if options.quick else 15)
        result["imagenet"] = measured("imagenet", folder, 2 if options.quick else 9)
        result["floors"] = floors(paths)
    for name in BATCH:
        result[name]["share_of_floor"] = share_of_floor(name, result)
    record_as_asked(options, "views", "python benchmarks/views.py", result)
    for name in BATCH:
        print_speeds(name, result[name])
    print("at most:", ", ".join(f"{name} {value:,.0f}" for name, value in result["floors"].items()))


if __name__ == "__main__":
    main()
