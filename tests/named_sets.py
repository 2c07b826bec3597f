"""Small sets of random images, written in the binary formats of the sets that torchvision names."""

import gzip
import hashlib
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
RNG = np.random.default_rng(0)


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def random_images(count: int, side: int, channels: int = 3) -> Bytes:
    return RNG.integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def write_cifar(
    folder: Path, batches: list[str], label_key: str, meta_file: str, meta: dict[str, Any], count: int = 4
) -> dict[str, tuple[Bytes, list[int]]]:
    """Write batches of `count` images; return images and labels by batch."""
    folder.mkdir(parents=True)
    written = {}
    for name in batches:
        images, labels = random_images(count, 32), (RNG.permutation(count) % 10).tolist()
        entry = {"data": images.reshape(count, -1), label_key: labels}  # a row: 1024 red, green, blue
        (folder / name).write_bytes(pickle.dumps(entry))
        written[name] = images, labels
    (folder / meta_file).write_bytes(pickle.dumps(meta))
    return written


def write_cifar10(data_dir: Path, count: int = 4) -> dict[str, tuple[Bytes, list[int]]]:
    """Write CIFAR-10 with `count` images in each of its six batches."""
    batches = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    names = {"label_names": [f"class {number}" for number in range(10)]}
    return write_cifar(data_dir / "cifar-10-batches-py", batches, "labels", "batches.meta", names, count)


def write_stl10(
    data_dir: Path, labels: dict[str, list[int]], unlabeled: int, names: list[str]
) -> dict[str, Bytes]:
    """Write STL-10 with these labels (from 1) and so many unlabelled images; return images by split."""
    folder = data_dir / "stl10_binary"
    folder.mkdir(parents=True)
    counts = {**{split: len(numbers) for split, numbers in labels.items()}, "unlabeled": unlabeled}
    images = {split: random_images(count, 96) for split, count in counts.items()}
    for split, pixels in images.items():
        pixels.transpose(0, 1, 3, 2).tofile(folder / f"{split}_X.bin")  # stored column by column
    for split, numbers in labels.items():
        np.array(numbers, dtype=np.uint8).tofile(folder / f"{split}_y.bin")
    (folder / "class_names.txt").write_text("\n".join(names))
    return images


def idx(array: Bytes) -> bytes:
    """The IDX format: two zero bytes, the type (8: unsigned byte), the rank, the sizes, the bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_emnist(data_dir: Path, variant: str, images: Bytes, labels: list[int]) -> str:
    """Write images [N,28,28] as train and, inverted, as test of one EMNIST set; return the archive's MD5."""
    raw = data_dir / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    with zipfile.ZipFile(raw / "gzip.zip", "w") as archive:
        for split, pixels in (("train", images), ("test", 255 - images)):
            name = f"gzip/emnist-{variant}-{split}"
            lying = gzip.compress(idx(pixels.transpose(0, 2, 1).copy()))
            archive.writestr(f"{name}-images-idx3-ubyte.gz", lying)
            numbers = np.array(labels, dtype=np.uint8)
            archive.writestr(f"{name}-labels-idx1-ubyte.gz", gzip.compress(idx(numbers)))
    return md5(raw / "gzip.zip")
