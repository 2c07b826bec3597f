"""Made-up images: smooth random colours plus noise."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def pictures(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return uint8 [count,3,height,width]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    noise = 0.05 * torch.randn(count, 3, height, width, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + noise).clamp(0, 1).mul(255).round().to(torch.uint8)


def write_images(folder: Path, images: Iterable[Tensor], suffix: str) -> list[Path]:
    """Write images [3,H,W] as files 0000000.png, ...; JPEG files have quality 90. Return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, image in enumerate(images):
        paths.append(folder / f"{index:07}.{suffix}")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1], quality=90)
    return paths


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of 500x375 pixels; after 256 they repeat, as further names of the same files."""
    paths = write_images(folder, pictures(min(count, 256), 375, 500), "jpg")
    for index in range(len(paths), count):
        paths.append(folder / f"{index:07}.jpg")
        os.link(paths[index % 256], paths[-1])
    return paths
