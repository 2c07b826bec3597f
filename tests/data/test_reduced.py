"""Large JPEG files are decoded no larger than their views or vectors need, and mean the same."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from byol.augment.evaluation import Preprocess
from byol.augment.presets import PRESETS
from byol.data.batches import BatchPlan, streamed_batches
from byol.data.decode import EncodedPicture, decode
from byol.data.images import Concatenation, Subset, TensorImages, picture
from byol.data.source import open_source
from byol.errors import UserError
from byol.evaluation.batches import preprocessed_batches

HEIGHT, WIDTH = 611, 803


def scene(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """Return a picture with structure at every scale, as photographs have."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(3, height, width)
    for side in (3, 9, 27, 81):
        noise = torch.rand(1, 3, side, side, generator=generator)
        total += torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")[0] / 3
    return Image.fromarray((total * 255 / 1.4).clamp(0, 255).byte().permute(1, 2, 0).numpy())


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # Sides of whole blocks: from a side that is turned to the far end a last part of a block would push all
    # others on, by less than a pixel of the result.
    return encoded(scene(608, 800), quality=92, exif=exif.tobytes())


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda: encoded(scene(), quality=92), id="plain"),
        pytest.param(lambda: encoded(scene(), quality=92, progressive=True), id="progressive"),
        pytest.param(lambda: encoded(scene().convert("L"), quality=92), id="grey"),
        pytest.param(lambda: encoded(scene().convert("CMYK"), quality=92), id="cmyk"),
        pytest.param(lambda: encoded(scene(), "MPO", save_all=True, append_images=[scene(80, 90)]), id="mpo"),
        *(pytest.param(lambda turn=turn: turned(turn), id=f"turn {turn}") for turn in range(1, 9)),
    ],
)
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_a_reduced_jpeg_is_the_whole_one_made_smaller(source: Callable[[], bytes], reduction: int) -> None:
    file = source()
    image, whole = EncodedPicture(file), decode(file)
    assert (image.height, image.width) == whole.shape[1:]
    assert image.reduction(2 * reduction * 30, 30) == reduction
    small = image.pixels(reduction)
    assert small.shape == (3, *(-(-side // reduction) for side in whole.shape[1:]))
    if reduction == 1:
        assert torch.equal(small, whole)
    expected = torch.nn.functional.avg_pool2d(whole.float(), reduction, ceil_mode=True)
    inner = (small.float() - expected)[:, 1:-1, 1:-1].abs()  # blocks at the border are filled up
    assert float(inner.mean()) < 1.5 and float(inner.max()) < 30


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
def test_other_formats_come_whole(kind: str) -> None:
    file = encoded(scene(), kind)
    image = EncodedPicture(file)
    assert image.reduction(10_000, 8) == 1
    assert (image.height, image.width) == (HEIGHT, WIDTH) and torch.equal(image.pixels(), decode(file))


def test_at_least_twice_the_wanted_pixels_are_left() -> None:
    image = EncodedPicture(encoded(scene()))
    for side in range(1, 300):
        for wanted in (1, 7, 16):
            divisor = image.reduction(side, wanted)
            assert divisor == 1 or side / divisor >= 2 * wanted
            assert divisor == 8 or side / (2 * divisor) < 2 * wanted


def test_sets_of_every_kind_give_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(scene()))
    (tmp_path / "b.png").write_bytes(encoded(scene(60, 70), "PNG"))
    files = open_source(f"folder:{tmp_path}").train
    tensors = TensorImages(torch.randint(0, 256, (3, 3, 8, 9), dtype=torch.uint8))
    both = Concatenation(files, Subset(tensors, [2, 0]))
    for index in (0, 1, 2, 3):
        image = picture(Subset(both, [3, 2, 1, 0]), 3 - index)
        assert (image.height, image.width) == both[index].shape[1:]
        assert torch.equal(image.pixels(), both[index])
    assert picture(both, 0).reduction(HEIGHT, 32) == 8 and picture(both, 2).reduction(10_000, 32) == 1


def test_broken_files_are_named_where_the_header_or_the_pixels_are_read() -> None:
    with pytest.raises(UserError, match=r"cannot read image 'here.jpg': not an image"):
        EncodedPicture(b"nothing", name="here.jpg")
    cut_short = encoded(scene())[:4000]
    for reduction in (1, 4):
        image = EncodedPicture(cut_short, name="here.jpg")
        with pytest.raises(UserError, match=r"cannot read image 'here.jpg': .*truncated"):
            image.pixels(reduction)


def folder(path: Path) -> Path:
    path.mkdir()
    for number in range(4):
        (path / f"{number}.jpg").write_bytes(turned(1 + 2 * number))
    return path


@contextmanager
def counted_reductions() -> Iterator[list[int]]:
    """Collect by how much smaller each file is decoded meanwhile."""
    found: list[int] = []
    pixels = EncodedPicture.pixels

    def counted(image: EncodedPicture, reduction: int = 1) -> Tensor:
        found.append(reduction)
        return pixels(image, reduction)

    with mock.patch.object(EncodedPicture, "pixels", counted):
        yield found


def test_views_of_large_files_are_those_of_whole_images(tmp_path: Path) -> None:
    images, plan = open_source(f"folder:{folder(tmp_path / 'images')}").train, BatchPlan(4, 4)
    spec = PRESETS["small"][0]
    with counted_reductions() as reductions:
        (batch,) = streamed_batches(images, plan, (spec, spec), 32, 0, 1, num_workers=0)
    for row, index in enumerate(plan.indices(0).tolist()):
        whole = images[index]
        height, width = whole.shape[1:]
        sides = []
        for view in range(2):
            pixels = batch.boxes[row, view].double() * torch.tensor([width, height, width, height])
            left, top, right, bottom = pixels.round().int().tolist()
            sides += [bottom - top, right - left]
            mode = transforms.InterpolationMode(spec.crop.interpolation)
            box = (top, left, bottom - top, right - left)
            expected = transforms.resized_crop(whole, *box, [32, 32], mode, antialias=True)
            if batch.flipped[row, view]:
                expected = transforms.horizontal_flip(expected)
            # Edges of crops lie on the nearest of the reduced pixels, at most a quarter of the view's away.
            shifted = apart(expected.roll(1, 2), expected).mean()
            assert apart(batch.images[row, view], expected).mean() < 0.3 * shifted
        assert reductions[row] == EncodedPicture(turned(1)).reduction(min(sides), 32)
    assert sum(reduction > 1 for reduction in reductions) >= 2, "or this test compares nothing"


def test_the_official_code_s_views_are_of_whole_images(tmp_path: Path) -> None:
    """It does not antialias: a reduced image would give it other pixels."""
    images, plan = open_source(f"folder:{folder(tmp_path / 'images')}").train, BatchPlan(4, 4)
    with counted_reductions() as reductions:
        list(streamed_batches(images, plan, PRESETS["official"], 32, 0, 1, num_workers=0))
    assert reductions == [1] * 4


def test_vectors_of_large_files_are_those_of_whole_images(tmp_path: Path) -> None:
    images = open_source(f"folder:{folder(tmp_path / 'images')}").train
    preprocess = Preprocess(28, mean=(0.0,) * 3, std=(1.0,) * 3, crop_fraction=28 / 32)
    with counted_reductions() as reductions:
        (batch,) = preprocessed_batches(images, preprocess, torch.arange(4), num_workers=0)
    assert reductions == [1, *[8] * 4]  # the first is read whole: that the set is not for memory
    for row in range(4):
        difference = apart(batch[row] * 255, preprocess(images[row]) * 255)
        assert float(difference.mean()) < 1 and float(difference.max()) < 16


def apart(image: Tensor, expected: Tensor) -> Tensor:
    return (image.float() - expected.float()).abs()
