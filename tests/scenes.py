"""Generated scenes with masks: coloured boxes on a ground; the colour tells the class, but for noise."""

import io
from pathlib import Path

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from byol.data.images import TensorImages

VOID = 255
_COLOURS = np.array([[90, 90, 90], [200, 60, 60], [60, 60, 200]])


def scenes(count: int, height: int = 24, width: int = 32, seed: int = 0) -> TensorImages:
    """Return images [N,3,H,W] of three classes, with masks that are void along the upper edge."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), dtype=np.uint8)
    for mask in masks:
        for number in (1, 2):
            top, left = generator.integers(0, (height - 10, width - 12))
            mask[top : top + 10, left : left + 12] = number
    pixels = _COLOURS[masks] + generator.integers(-25, 26, (*masks.shape, 3))
    masks[:, 0] = VOID
    images = torch.from_numpy(pixels.astype(np.uint8)).permute(0, 3, 1, 2).contiguous()
    return TensorImages(images, masks=torch.from_numpy(masks))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode [H,W] or [H,W,3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_scenes(folder: Path, **counts: int) -> Path:
    """Write a Parquet file for each split; return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate(counts.items()):
        part = scenes(count, seed=seed)
        rows = [(part[i].permute(1, 2, 0).numpy(), part.masks[i].numpy()) for i in range(count)]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", rows)
    return folder


def write_parquet(file: Path, rows: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    """Write images and masks as `datasets` does, in columns image and mask."""
    columns = {
        name: [{"bytes": png(row[place]), "path": None} for row in rows]
        for place, name in enumerate(("image", "mask"))
    }
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(file))
