"""Masks beside images: which column, which numbers, and that they stay with their images."""

import io
import pickle
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import Features, Image, Value
from PIL import Image as PILImage

from byol.data.columns import find_columns, find_mask_column
from byol.data.hf import open_hf
from byol.data.images import Subset, in_memory
from byol.data.masks import decode_mask, known_pixel_classes
from byol.errors import UserError
from tests.scenes import png, scenes, write_scenes

CAMVID = Path(__file__).parents[2] / ".." / "shared" / "data" / "camvid"
STRUCT = {"bytes": Value("binary"), "path": Value("string")}


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_numbers_of_grey_palette_and_wide_masks_are_kept():
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    palette = PILImage.fromarray(numbers).copy()
    palette.putpalette([value for colour in range(256) for value in (255 - colour, 7, colour)])
    assert palette.mode == "P"
    wide = PILImage.fromarray(numbers.astype(np.uint16))
    assert wide.mode.startswith("I")
    for image in (PILImage.fromarray(numbers), palette, wide):
        mask = decode_mask(encoded(image))
        assert mask.dtype == torch.uint8
        assert np.array_equal(mask.numpy(), numbers)
    assert decode_mask(encoded(PILImage.fromarray(numbers > 60))).tolist() == (numbers > 60).tolist()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (encoded(PILImage.fromarray(np.full((2, 2), 300, dtype=np.uint16))), "run from 300 to 300"),
        (png(np.zeros((2, 2, 3), dtype=np.uint8)), "mode RGB, not grey or with a palette"),
        (b"nothing", "cannot identify"),
    ],
)
def test_other_pictures_are_refused(source, message):
    with pytest.raises(UserError, match=rf"cannot read the mask of image 'a/1': .*{message}"):
        decode_mask(source, "a/1")


@pytest.mark.parametrize(
    ("features", "image", "mask"),
    [
        ({"image": Image(), "mask": Image()}, "image", "mask"),
        ({"photo": Image(), "label": Image()}, "photo", "label"),
        ({"image": Image(), "annotation": STRUCT, "depth": Image()}, "image", "annotation"),
        ({"image": Image(), "label": Image(), "segmentation": Image()}, "image", "segmentation"),
        ({"image": Image(), "label": Value("int64")}, "image", None),
        ({"image": Image(), "depth": Image()}, "image", None),
        ({"mask": Image()}, "mask", None),
    ],
)
def test_mask_column(features, image, mask):
    features = Features(features)
    assert find_columns("x", features)[0] == image
    assert find_mask_column(features, image) == mask


def test_a_set_with_masks_and_its_parts(tmp_path):
    folder = write_scenes(tmp_path / "data", train=5, val=3, test=2)
    source = open_hf(str(folder), data_dir=str(tmp_path / "downloads"))
    assert [len(part) for part in (source.train, source.validation, source.test)] == [5, 3, 2]
    expected = scenes(5)
    assert all(torch.equal(source.train.masks[i], expected.masks[i]) for i in range(5))
    assert all(torch.equal(source.train[i], expected[i]) for i in range(5))
    part = Subset(Subset(source.train, [4, 2, 1]), [2, 0])
    for kept in (part, in_memory(part), pickle.loads(pickle.dumps(part))):
        assert torch.equal(kept.masks[0], expected.masks[1])
        assert torch.equal(kept.masks[1], expected.masks[4])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_masks_of_images_that_are_turned_when_read_are_refused(tmp_path, kind):
    columns = {"image": [], "mask": []}
    for orientation in (1, 2, 3, 6):
        image, tags = PILImage.new("RGB", (4, 4)), PILImage.Exif()
        tags[0x0112] = orientation
        buffer = io.BytesIO()
        image.save(buffer, kind, exif=tags)
        columns["image"].append({"bytes": buffer.getvalue(), "path": None})
        columns["mask"].append({"bytes": png(np.eye(4, dtype=np.uint8)), "path": None})
    features = Features({"image": Image(), "mask": Image()})
    (tmp_path / "d").mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "d" / "train.parquet"))
    train = open_hf(str(tmp_path / "d"), data_dir=str(tmp_path / "downloads")).train
    masks = pickle.loads(pickle.dumps(train)).masks
    assert [masks[0].tolist() for _ in range(2)] == [np.eye(4).tolist()] * 2
    for index, orientation in ((1, 2), (2, 3), (3, 6)):
        message = f"image 'train/{index}' has EXIF orientation {orientation}, .*: store both upright"
        with pytest.raises(UserError, match=message):
            masks[index]
        assert train[index].shape == (3, 4, 4)  # the images are there for pretraining


def test_the_validation_split_of_other_data_is_left_alone(tmp_path):
    for split in ("train", "validation"):
        table = datasets.Dataset.from_dict(
            {"image": [{"bytes": png(np.zeros((2, 2), dtype=np.uint8)), "path": None}]},
            features=Features({"image": Image()}),
        )
        (tmp_path / "d").mkdir(exist_ok=True)
        table.to_parquet(str(tmp_path / "d" / f"{split}.parquet"))
    source = open_hf(str(tmp_path / "d"), data_dir=str(tmp_path / "downloads"))
    assert source.validation is None and source.train.masks is None


def test_known_classes_go_by_the_last_part_of_the_name():
    known = known_pixel_classes("hf:../some/where/camvid")
    assert known is not None and known.void == 11 and len(known.names) == 11
    assert known_pixel_classes("hf:camvid/other") is known_pixel_classes("digits") is None


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the shared CamVid is not there")
def test_the_real_camvid(tmp_path):
    source = open_hf(str(CAMVID), data_dir=str(tmp_path))
    assert [len(part) for part in (source.train, source.validation, source.test)] == [367, 101, 233]
    for part in (source.train, source.validation, source.test):
        assert part.masks[0].shape == part[0].shape[1:] == (180, 240)
        numbers = torch.stack([part.masks[index] for index in range(0, len(part), 10)]).unique()
        assert numbers.tolist() == list(range(12))
