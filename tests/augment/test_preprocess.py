"""The fixed preprocessing against torchvision's resize, centre crop and normalisation."""

import json
from dataclasses import asdict

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from byol.augment.evaluation import Preprocess
from byol.augment.presets import IMAGENET_MEAN, IMAGENET_STD


def preprocess(size, **settings):
    return Preprocess(size, IMAGENET_MEAN, IMAGENET_STD, **settings)


def reference(images, size, short, interpolation):
    resized = tv.resize(images, [short], tv.InterpolationMode(interpolation), antialias=True)
    resized = tv.to_dtype(resized, torch.float32, scale=True).clamp(0, 1)
    return tv.normalize(tv.center_crop(resized, [size, size]), IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "size", "fraction"),
    [(60, 60, 28, 28 / 32), (48, 66, 28, 28 / 32), (66, 50, 32, 1.0), (20, 30, 32, 1.0), (32, 32, 32, 1.0)],
)
def test_it_equals_torchvision(interpolation, height, width, size, fraction):
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    for given in (images, images.float() / 255):
        ours = preprocess(size, crop_fraction=fraction, interpolation=interpolation)(given)
        assert ours.shape == (2, 3, size, size)
        expected = reference(given, size, round(size / fraction), interpolation)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_one_image_and_floats():
    images = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    prepare = preprocess(32)
    torch.testing.assert_close(prepare(images[1]), prepare(images)[1])
    # Bytes are rounded after each of the two directions, floats never.
    smooth = (
        torch.stack([torch.linspace(20, 230, 50) + row for row in range(0, 20)]).byte().expand(2, 3, -1, -1)
    )
    rounded = 1.01 / 255 / min(IMAGENET_STD)
    torch.testing.assert_close(prepare(smooth.double() / 255), prepare(smooth), rtol=0, atol=rounded)


def test_the_input_stays_as_it_is():
    images = torch.rand(2, 3, 32, 32)
    before = images.clone()
    preprocess(32)(images)
    assert torch.equal(images, before)


def test_it_survives_json():
    prepare = preprocess(224, crop_fraction=224 / 256, interpolation="bilinear")
    assert Preprocess.from_dict(json.loads(json.dumps(asdict(prepare)))) == prepare
