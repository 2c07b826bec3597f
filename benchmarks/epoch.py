"""End-to-end images per second over an epoch: `byol.pretrain` beside lightly's CIFAR-10 BYOL benchmark.

    python benchmarks/epoch.py [--case NAME] [--data hf:PATH] [--out benchmarks/results/epoch-DEVICE.json]

Two cases, the same network, heads, batch, precision, augmentations and optimizer for both
(`works/epoch.py`): CIFAR-10, which ours holds in memory and lightly reads as PNG files, as its benchmark
does; and a folder of made-up 500x375 JPEG files at 224 px. On a GPU all of CIFAR-10, ResNet-18 at batch 512,
and ResNet-50 at batch 256, in bf16; without one a part of it and small networks (`CASES`). Where the data
are absent, made-up 32 px images take their place, and the result says so.

"lightly" is as its script is. Beside it stands lightly with what its user could still ask for (`THEIRS`): our
memory layout, workers that stay from epoch to epoch, without a GPU other numbers of workers and a core for
the worker, with one a compiled network. Tables compare with the fastest of these.
"""

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cost_model import step_work
from floors import DEVICE, convolution_rate, copy_bandwidth, matrix_rate, step_operations
from pictures import pictures, write_images, write_photographs
from recorded import earlier_cases, parser, record_as_asked
from torch import Tensor
from turns import Work, in_turns, limits, middle, peer_versions, peers_installed, ratio, share
from works.networks import network

from byol.data.source import open_source
from byol.training.compilation import missing_for_compiling

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
        "jpeg": Case("resnet8_16", 224, "imagenet", 384, 32, 4096, "fp32"),
    }
)


_ON_GPU = DEVICE.type == "cuda"
_TUNED = ["--channels-last", "--keep-workers"]
THEIRS: dict[str, list[str]] = {"lightly": []} | (
    {
        "lightly, channels last, workers kept": _TUNED,
        **({"lightly, the same compiled": [*_TUNED, "--compile"]} if missing_for_compiling() is None else {}),
    }
    if _ON_GPU
    else {
        "lightly, channels last, no workers": [*_TUNED, "--num-workers", "0"],
        "lightly, channels last, 1 worker, 1 thread": [*_TUNED, "--num-workers", "1", "--threads", "1"],
        "lightly, channels last, 2 workers": [*_TUNED, "--num-workers", "2"],
    }
)
"""Contestants of lightly's, and what each asks of `works/epoch.py` beside what is the same for all."""
ROUNDS = 5 if _ON_GPU else 3


def cifar_images(source: str | None, count: int) -> tuple[Tensor, str]:
    """Return images [N,3,32,32], and what they are."""
    if source is None and not CIFAR10.is_dir():
        return pictures(count, 32, 32), "made-up 32x32 images"
    train = open_source(source or f"hf:{CIFAR10}").train
    return torch.stack([train[index] for index in range(min(count, len(train)))]), "CIFAR-10"


def measured(case: Case, data: dict[str, Path], rounds: int, num_workers: int) -> dict[str, Any]:
    """Return all contestants' images per second and shares of waiting: medians of epochs in turns."""
    words = {"num-workers": num_workers, **asdict(case)}
    same = [word for name, value in words.items() if name != "images" for word in (f"--{name}", str(value))]
    works = {"byol": Work("epoch.py", "--library", "byol", "--data", str(data["byol"]), *same)}
    if peers_installed():
        words_of_theirs = ["--library", "lightly", "--data", str(data["lightly"]), *same]
        works |= {name: Work("epoch.py", *words_of_theirs, *own, peers=True) for name, own in THEIRS.items()}
    answers = in_turns(works, rounds, warm_up=1)
    rates = {name: [answer["images_per_second"] for answer in found] for name, found in answers.items()}
    return {
        "images_per_second": {name: middle(found, 1) for name, found in rates.items()},
        "slowest_and_fastest": {name: limits(found, 1) for name, found in rates.items()},
        "waiting_for_data": {
            name: middle([answer["data_wait"] for answer in found], 3) for name, found in answers.items()
        },
        "byol_over": {
            name: ratio(rates["byol"], found, 2) for name, found in rates.items() if name != "byol"
        },
        "rounds": rounds,
        "num_workers": num_workers,
        "settings": {name: " ".join(THEIRS[name]) for name in works if name in THEIRS},
    }


def floor(case: Case, best: float, bandwidth: float) -> dict[str, float]:
    """Return the images per second that the operations of a step allow at the best measured rate.

    Beside it those at which a step's bytes go through at the speed of a copy: what each operator reads and
    writes, in float32 (half of it in bf16). A fused step moves fewer, so that they are no floor.
    """
    net, _ = network(case.backbone, case.size)
    operations = step_operations(net, case.size, case.hidden)
    moved = step_work(net, case.size, case.hidden).of(case.batch).bytes / case.batch
    moved *= 0.5 if case.precision == "bf16" else 1.0
    return {
        "operations_per_image": operations,
        "best_rate": best,
        "at_most": round(best / operations, 1),
        "bytes_per_image_unfused": moved,
        "bandwidth": bandwidth,
        "at_copy_speed_unfused": round(bandwidth / moved, 1),
    }


def tell(name: str, values: dict[str, Any]) -> None:
    """Print one case."""
    print(
        f"{name}: {values['backbone']}, {values['size']} px, batch {values['batch']}, {values['precision']}"
    )
    for library, rate in values["images_per_second"].items():
        times, waiting = values["byol_over"].get(library), values["waiting_for_data"][library]
        speed = "died" if rate is None else f"{rate:,.1f} images/s  waiting for data {waiting:.0%}"
        print(f"  {library:44s}{speed}" + (f"   byol {times:.2f}x" if times else ""))
    print(
        f"  at most {values['at_most']:,.1f}: {values['operations_per_image'] / 1e9:.2f} GFLOP an image "
        f"at {values['best_rate'] / 1e9:,.0f} GFLOP/s, of which byol"
        f" reaches {values['share_of_floor'] or 0:.2f} of that\n"
        f"  bytes, unfused, at the speed of a copy: {values['at_copy_speed_unfused']:,.1f}"
    )


def main() -> None:
    arguments = parser(__doc__, "an eighth of the images, one round: a look", CASES)
    arguments.add_argument("--data", help="CIFAR-10, as for byol pretrain; default: ../shared/data/cifar10")
    arguments.add_argument("--num-workers", type=int, default=max(1, min(16, (os.cpu_count() or 2) - 1)))
    options = arguments.parse_args()
    file = f"epoch-{DEVICE.type}"
    result: dict[str, Any] = {
        "peers": peer_versions(),
        "load_before": round(os.getloadavg()[0], 1),
        "cases": earlier_cases(options, file),
    }
    type_ = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
    best, bandwidth = max(matrix_rate(type_), convolution_rate(type_)), copy_bandwidth()
    for name in [options.case] if options.case else CASES:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            count = case.images // 8 if options.quick else case.images
            data, what = prepared(name, count, options.data, Path(folder))
            values = measured(case, data, 1 if options.quick else ROUNDS, options.num_workers)
        values |= {**asdict(case), "images": count, "data": what, **floor(case, best, bandwidth)}
        ours = values["images_per_second"]["byol"]
        values["share_of_floor"] = share(ours, values["at_most"])
        result["cases"][name] = values
        tell(name, values)
        record_as_asked(options, file, "python benchmarks/epoch.py", result)


def prepared(name: str, count: int, source: str | None, folder: Path) -> tuple[dict[str, Path], str]:
    """Write a case's images the way each library reads them; return where, and what they are."""
    if name == "jpeg":
        write_photographs(folder, count)
        return {"byol": folder, "lightly": folder}, "made-up 500x375 JPEG files"
    images, what = cifar_images(source, count)
    np.save(folder / "images.npy", images.numpy())
    if peers_installed():
        write_images(folder / "files", images, "png")
    return {"byol": folder / "images.npy", "lightly": folder / "files"}, what


if __name__ == "__main__":
    main()
