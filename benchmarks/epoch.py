"""End-to-end images per second over an epoch: `byol.pretrain` beside lightly's CIFAR-10 BYOL benchmark.

    python benchmarks/epoch.py [--quick] [--data hf:PATH] [--out benchmarks/results/epoch-DEVICE.json]

Two cases, the same network, heads, batch, precision, augmentations, optimizer and number of workers for both
(`works/epoch.py`): CIFAR-10, which ours holds in memory and lightly reads as PNG files, as its benchmark
does; and a folder of made-up 500x375 JPEG files at 224 px. On a GPU all of CIFAR-10, ResNet-18 at batch 512,
and ResNet-50 at batch 256, in bf16; without one a part of it and small networks (`CASES`). Where the data
are absent, made-up 32 px images take their place, and the result says so.
"""

import os
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from floors import DEVICE, convolution_rate, matrix_rate, step_operations
from pictures import pictures, write_images, write_photographs
from recorded import parser, record_as_asked
from torch import Tensor
from turns import Work, in_turns, peer_versions, peers_installed
from works.networks import network

from byol.data.source import open_source

ROOT = Path(__file__).parent.parent
CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10"


@dataclass(frozen=True)
class Case:
    """What an epoch consists of."""

    backbone: str
    size: int
    preset: str
    images: int
    batch: int
    hidden: int
    precision: str


CASES = (
    {
        "cifar10": Case("resnet18", 32, "small", 50_000, 512, 1024, "bf16"),
        "jpeg": Case("resnet50", 224, "imagenet", 10_240, 256, 4096, "bf16"),
    }
    if DEVICE.type == "cuda"
    else {
        "cifar10": Case("resnet8_32", 32, "small", 4096, 128, 1024, "fp32"),
        "jpeg": Case("resnet8_16", 224, "imagenet", 256, 32, 4096, "fp32"),
    }
)


def cifar_images(source: str | None, count: int) -> tuple[Tensor, str]:
    """Return images [N,3,32,32], and what they are."""
    if source is None and not CIFAR10.is_dir():
        return pictures(count, 32, 32), "made-up 32x32 images"
    train = open_source(source or f"hf:{CIFAR10}").train
    return torch.stack([train[index] for index in range(min(count, len(train)))]), "CIFAR-10"


def measured(case: Case, data: dict[str, Path], rounds: int, num_workers: int) -> dict[str, Any]:
    """Return both libraries' images per second and shares of waiting: medians of epochs in turns."""
    words = {"num-workers": num_workers, **asdict(case)}
    same = [word for name, value in words.items() if name != "images" for word in (f"--{name}", str(value))]
    libraries = ["byol", *(["lightly"] if peers_installed() else [])]
    works = {
        name: Work("epoch.py", "--library", name, "--data", str(data[name]), *same, peers=name != "byol")
        for name in libraries
    }
    answers = in_turns(works, rounds, warm_up=1)
    rates = {name: [answer["images_per_second"] for answer in found] for name, found in answers.items()}
    return {
        "images_per_second": {name: round(statistics.median(found), 1) for name, found in rates.items()},
        "slowest_and_fastest": {
            name: [round(min(found), 1), round(max(found), 1)] for name, found in rates.items()
        },
        "waiting_for_data": {
            name: round(statistics.median(answer["data_wait"] for answer in found), 3)
            for name, found in answers.items()
        },
        "byol_over": {
            name: round(statistics.median(map(float.__truediv__, rates["byol"], found)), 2)
            for name, found in rates.items()
            if name != "byol"
        },
        "rounds": rounds,
        "num_workers": num_workers,
    }


def floor(case: Case, best: float) -> dict[str, float]:
    """Return the images per second that the operations of a step allow at the best measured rate."""
    net, _ = network(case.backbone, case.size)
    operations = step_operations(net, case.size, case.hidden)
    return {"operations_per_image": operations, "best_rate": best, "at_most": round(best / operations, 1)}


def tell(name: str, values: dict[str, Any]) -> None:
    """Print one case."""
    print(
        f"{name}: {values['backbone']}, {values['size']} px, batch {values['batch']}, {values['precision']}"
    )
    for library, rate in values["images_per_second"].items():
        ratio, waiting = values["byol_over"].get(library), values["waiting_for_data"][library]
        print(
            f"  {library:8s}{rate:10,.1f} images/s  waiting for data {waiting:.0%}"
            + (f"   byol {ratio:.2f}x" if ratio else "")
        )
    print(
        f"  at most {values['at_most']:,.1f}: {values['operations_per_image'] / 1e9:.2f} GFLOP an image at "
        f"{values['best_rate'] / 1e9:,.0f} GFLOP/s; byol reaches {values['share_of_floor']:.2f} of that"
    )


def main() -> None:
    arguments = parser(__doc__, "an eighth of the images, one round: a look")
    arguments.add_argument("--data", help="CIFAR-10, as for byol pretrain; default: ../shared/data/cifar10")
    arguments.add_argument("--num-workers", type=int, default=max(1, min(8, (os.cpu_count() or 2) - 1)))
    options = arguments.parse_args()
    result: dict[str, Any] = {
        "peers": peer_versions(),
        "load_before": round(os.getloadavg()[0], 1),
        "cases": {},
    }
    type_ = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
    best = max(matrix_rate(type_), convolution_rate(type_))
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            count = case.images // 8 if options.quick else case.images
            data, what = prepared(name, count, options.data, Path(folder))
            values = measured(case, data, 1 if options.quick else 5, options.num_workers)
        values |= {**asdict(case), "images": count, "data": what, **floor(case, best)}
        values["share_of_floor"] = round(values["images_per_second"]["byol"] / values["at_most"], 3)
        result["cases"][name] = values
        tell(name, values)
    record_as_asked(options, f"epoch-{DEVICE.type}", "python benchmarks/epoch.py", result)


def prepared(name: str, count: int, source: str | None, folder: Path) -> tuple[dict[str, Path], str]:
    """Write a case's images the way each library reads them; return where, and what they are."""
    if name == "jpeg":
        write_photographs(folder, count)
        return {"byol": folder, "lightly": folder}, "made-up 500x375 JPEG files"
    images, what = cifar_images(source, count)
    np.save(folder / "images.npy", images.numpy())
    write_images(folder / "files", images, "png")
    return {"byol": folder / "images.npy", "lightly": folder / "files"}, what


if __name__ == "__main__":
    main()
