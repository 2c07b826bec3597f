"""Two views of each image of a batch as a library makes them, on one thread.

small: 32x32 images in memory (small.npy, uint8 [N,3,32,32]) to 32x32. imagenet: JPEG files to 224x224,
decoding included.
"""

import argparse
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from turn import seconds, set_up_torch, take_turns

SEED = 0
SIZES = {"small": 32, "imagenet": 224}
Make = Callable[[], object]
Transform = Callable[[Any], list[Tensor]]


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
        from byol.data.decode import decode

        return decode(self.paths[index])


def byol_small(folder: Path) -> Make:
    """Return ours, of a resident batch."""
    from byol.augment.views import views

    generator = torch.Generator().manual_seed(SEED)
    return partial(views, small_images(folder), 32, "small", generator)


def byol_imagenet(folder: Path) -> Make:
    """Return ours: decode, cut and colour one batch with training's own loader and view maker."""
    from byol.augment.presets import PRESETS
    from byol.data.batches import BatchPlan, streamed_batches
    from byol.training.view_makers import StreamedViews

    files, specs = Files(jpeg_files(folder)), PRESETS["imagenet"]
    plan = BatchPlan(len(files), len(files), seed=SEED)

    def make() -> object:
        batch = next(iter(streamed_batches(files, plan, specs, 224, 0, 1, num_workers=0)))
        return StreamedViews(specs, plan)(batch)

    return make


def torchvision_small(folder: Path) -> Make:
    """Return torchvision's, image by image."""
    return partial(each, torchvision_views("small"), small_images(folder))


def torchvision_imagenet(folder: Path) -> Make:
    """Return torchvision's with its own JPEG reader."""
    from torchvision.io import ImageReadMode, decode_image, read_file

    paths, transform = jpeg_files(folder), torchvision_views("imagenet")

    def make() -> object:
        return each(transform, (decode_image(read_file(str(path)), ImageReadMode.RGB) for path in paths))

    return make


def torchvision_views(preset: str) -> Transform:
    """Return a function from an image to the preset's two views."""
    from byol.augment.presets import PRESETS

    both = [
        torchvision_view(SIZES[preset], spec.blur, spec.solarize, spec.crop.interpolation)  # type: ignore
        for spec in PRESETS[preset]
    ]
    return lambda image: [view(image) for view in both]


def torchvision_view(size: int, blur: float, solarize: float, interpolation: str) -> Callable[[Any], Tensor]:
    """Return one of BYOL's views of a uint8 image as torchvision makes it."""
    from torchvision.transforms import v2

    from byol.augment.presets import IMAGENET_MEAN, IMAGENET_STD

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


def lightly_small(folder: Path) -> Make:
    """Return lightly's of PIL images, without its blur."""
    from lightly_views import byol_transform

    images = small_images(folder).permute(0, 2, 3, 1).numpy()
    return partial(each, byol_transform(32, blur=False), [Image.fromarray(image) for image in images])


def lightly_imagenet(folder: Path) -> Make:
    """Return lightly's; PIL decodes, as in its LightlyDataset."""
    from lightly_views import byol_transform

    paths, transform = jpeg_files(folder), byol_transform(224)
    opened = lambda path: Image.open(io.BytesIO(path.read_bytes())).convert("RGB")  # noqa: E731
    return lambda: each(transform, map(opened, paths))


def each(transform: Transform, images: Any) -> list[Tensor]:
    """Transform images one by one and stack the views, as a loader's worker does."""
    return [torch.stack(view) for view in zip(*map(transform, images), strict=True)]


def small_images(folder: Path) -> Tensor:
    """Return [N,3,32,32] bytes."""
    return torch.from_numpy(np.load(folder / "small.npy"))


def jpeg_files(folder: Path) -> list[Path]:
    """Return the files in order."""
    return sorted(folder.glob("*.jpg"))


WORKS = {
    ("small", "byol"): byol_small,
    ("small", "torchvision"): torchvision_small,
    ("small", "lightly"): lightly_small,
    ("imagenet", "byol"): byol_imagenet,
    ("imagenet", "torchvision"): torchvision_imagenet,
    ("imagenet", "lightly"): lightly_imagenet,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=SIZES, required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    set_up_torch(1)
    torch.manual_seed(SEED)
    take_turns(WORKS[options.preset, options.library](options.folder), seconds)


if __name__ == "__main__":
    main()
