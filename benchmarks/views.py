"""Views per second on one core: byol beside lightly's BYOLTransform and torchvision v2.

Two pieces of work, each of them done by all in turns, in one process, on one thread:

- small: a resident batch of 32x32 uint8 images to two normalised float views of preset "small";
- imagenet: 500x375 JPEG files to two normalised float 224x224 views of preset "imagenet", decoding
  included. The files are smooth random colours plus noise, quality 90, made in a temporary folder.

    python benchmarks/views.py [--quick] [--out benchmarks/results/views.json]

lightly is measured where it is installed: pip install byol[bench]. As it ships it does a little less: a
bilinear crop and an approximate blur, both on bytes. torchvision works on bytes too; ours works on floats
after the crop. For "small" lightly's blur is switched off, and torchvision has none.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from recorded import record
from torch import Tensor
from torchvision.transforms import v2

from byol.augment.presets import IMAGENET_MEAN, IMAGENET_STD, PRESETS
from byol.augment.views import views
from byol.data.batches import Batch, BatchPlan, streamed_batches
from byol.data.decode import decode
from byol.training.view_makers import StreamedViews

SEED = 0
SMALL_BATCH, LARGE_BATCH = 512, 32
Work = Callable[[], object]


class Files:
    """JPEG files as a byol image set."""

    def __init__(self, paths: list[Path]) -> None:
        self.keys = [str(path) for path in paths]
        self.labels = None
        self.class_names = None
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return decode(self.paths[index])


def pictures(count: int, height: int, width: int) -> Tensor:
    """Return smooth random colours plus noise, uint8 [count,3,height,width]."""
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    noise = 0.05 * torch.randn(count, 3, height, width, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + noise).clamp(0, 1).mul(255).round().to(torch.uint8)


def write_files(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of 500x375 pixels, quality 90."""
    paths = [folder / f"{index}.jpg" for index in range(count)]
    for path, image in zip(paths, pictures(count, 375, 500), strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path, quality=90)
    return paths


def torchvision_view(size: int, blur: float, solarize: float, interpolation: str) -> v2.Compose:
    """Return one of BYOL's views of a uint8 image as torchvision makes it."""
    blurring = v2.RandomApply([v2.GaussianBlur(size // 20 * 2 + 1, (0.1, 2.0))], p=blur)
    steps = [
        v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode(interpolation), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
        *([blurring] if blur else []),
        v2.RandomSolarize(128, p=solarize),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    return v2.Compose(steps)


def torchvision_views(size: int, preset: str) -> Callable[[Tensor], list[Tensor]]:
    """Return a function from an image to the preset's two views."""
    both = [
        torchvision_view(size, spec.blur, spec.solarize, spec.crop.interpolation if spec.crop else "bilinear")
        for spec in PRESETS[preset]
    ]
    return lambda image: [view(image) for view in both]


def lightly_views(size: int, **settings: Any) -> Callable[[Any], Any]:
    """Return lightly's BYOL transform of a PIL image; the settings hold for both views."""
    from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform

    first = BYOLView1Transform(input_size=size, **settings)
    return BYOLTransform(first, BYOLView2Transform(input_size=size, **settings))


def each(transform: Callable[[Any], list[Tensor]], images: Any) -> list[Tensor]:
    """Transform images one by one and stack the views, as a loader's worker does."""
    return [torch.stack(view) for view in zip(*map(transform, images), strict=True)]


def small_works() -> dict[str, Work]:
    """Return 32x32 -> 32x32, a batch in memory -> two batches of views."""
    images = pictures(SMALL_BATCH, 32, 32)
    generator = torch.Generator().manual_seed(SEED)
    works: dict[str, Work] = {
        "byol": partial(views, images, 32, "small", generator),
        "torchvision": partial(each, torchvision_views(32, "small"), images),
    }
    if find_spec("lightly"):
        opened = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        works["lightly"] = partial(each, lightly_views(32, gaussian_blur=0.0), opened)
    return works


def byol_from_files(files: Files) -> tuple[Tensor, Tensor]:
    """Decode, cut and colour one batch with training's own loader and view maker."""
    specs, plan = PRESETS["imagenet"], BatchPlan(len(files), len(files), seed=SEED)
    batch: Batch = next(iter(streamed_batches(files, plan, specs, 224, 0, 1, num_workers=0)))
    made: tuple[Tensor, Tensor] = StreamedViews(specs, plan)(batch)
    return made


def torchvision_from_files(paths: list[Path], transform: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
    """Decode with torchvision's own JPEG reader."""
    from torchvision.io import ImageReadMode, decode_image, read_file

    return each(transform, (decode_image(read_file(str(path)), ImageReadMode.RGB) for path in paths))


def lightly_from_files(paths: list[Path], transform: Callable[[Any], list[Tensor]]) -> list[Tensor]:
    """Decode with PIL, as lightly's LightlyDataset does."""
    return each(transform, (Image.open(io.BytesIO(path.read_bytes())).convert("RGB") for path in paths))


def imagenet_works(paths: list[Path]) -> dict[str, Work]:
    """Return JPEG files -> two batches of 224x224 views."""
    works: dict[str, Work] = {
        "byol": partial(byol_from_files, Files(paths)),
        "torchvision": partial(torchvision_from_files, paths, torchvision_views(224, "imagenet")),
    }
    if find_spec("lightly"):
        works["lightly"] = partial(lightly_from_files, paths, lightly_views(224))
    return works


def seconds(work: Work) -> float:
    """Return the wall-clock time of one run."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measured(works: dict[str, Work], num_views: int, rounds: int) -> dict[str, Any]:
    """Run all in turns; return the medians in views/s, their ranges and the ratios to ours."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    speed = {name: num_views / statistics.median(taken) for name, taken in times.items()}
    return {
        "views_per_second": {name: round(value, 1) for name, value in speed.items()},
        "slowest_and_fastest": {
            name: [round(num_views / max(taken), 1), round(num_views / min(taken), 1)]
            for name, taken in times.items()
        },
        "byol_over": {name: round(speed["byol"] / speed[name], 2) for name in speed if name != "byol"},
        "rounds": rounds,
    }


def copy_bandwidth() -> float:
    """Return bytes/s read and written by a large copy: what moving memory costs at least."""
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    return 2 * 4 * 2**26 / min(seconds(partial(target.copy_, source)) for _ in range(5))


def floors(paths: list[Path]) -> dict[str, float]:
    """Return views/s that our way of making them cannot exceed, each from one part of the work alone.

    For "small": bytes in and out at the speed of a copy, and the crop's two matrix products; for
    "imagenet": decoding, once for two views.
    """
    bytes_per_view = (
        32 * 32 * 3 * (1 / 2 + 4)
    )  # each byte is read once for two views, each float written once
    matrices = torch.rand(128, 3 * 32, 32)  # as many as fit the cache
    weights = torch.rand(128, 32, 32)
    products = min(seconds(lambda: torch.bmm(matrices, weights)) for _ in range(20))
    decoding = min(seconds(lambda: [decode(path) for path in paths]) for _ in range(3))
    return {
        "small_bytes_at_copy_speed": round(copy_bandwidth() / bytes_per_view),
        "small_crop_products_alone": round(128 / (2 * products)),
        "imagenet_decoding_alone": round(2 * len(paths) / decoding, 1),
    }


def print_speeds(name: str, speeds: dict[str, Any]) -> None:
    """Print one line for each library: views/s and how many times as fast ours is."""
    for library, value in speeds["views_per_second"].items():
        ratio = speeds["byol_over"].get(library)
        print(f"{name:9s}{library:12s}{value:10,.0f} views/s" + (f"   byol {ratio:.2f}x" if ratio else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a result")
    parser.add_argument("--out", type=Path, help="JSON file; default: benchmarks/results/views.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    if not find_spec("lightly"):
        print("lightly is not installed and left out: pip install byol[bench]")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), LARGE_BATCH)
        result: dict[str, Any] = {
            "peers": {
                name: version(name) for name in ("lightly", "pillow") if name == "pillow" or find_spec(name)
            },
            "threads": 1,
            "load_before": round(os.getloadavg()[0], 1),
            "seed": SEED,
            "batch": {"small": SMALL_BATCH, "imagenet": LARGE_BATCH},
            "small": measured(small_works(), 2 * SMALL_BATCH, 3 if options.quick else 15),
            "imagenet": measured(imagenet_works(paths), 2 * LARGE_BATCH, 2 if options.quick else 9),
            "floors": floors(paths),
        }
    if options.out or not options.quick:
        print(record("views", "python benchmarks/views.py", result, options.out))
    for name in ("small", "imagenet"):
        print_speeds(name, result[name])
    print("at most:", ", ".join(f"{name} {value:,.0f}" for name, value in result["floors"].items()))


if __name__ == "__main__":
    main()
