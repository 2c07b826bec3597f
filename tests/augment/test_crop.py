"""Crops against torchvision's `resized_crop` on the same integer boxes."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from byol.augment import apply as module
from byol.augment.apply import geometric
from byol.augment.draw import GeometricDraw, draw_geometric
from byol.augment.presets import PRESETS, Crop, ViewSpec
from byol.augment.resample import crop, crop_in_turn, resize
from byol.data.crops import cut

BOXES = torch.tensor(
    [
        [0, 0, 48, 60],  # the whole image
        [47, 59, 1, 1],  # one pixel in the corner
        [3, 5, 8, 7],  # enlarged
        [3, 5, 16, 16],  # as it is, at size 16
        [10, 0, 31, 60],  # reduced
        [0, 20, 48, 2],  # reduced one way, enlarged the other
    ]
)
FLIP = torch.tensor([False, True, False, True, True, False])
INTERPOLATIONS = ["bilinear", "bicubic"]


def byte_pictures(channels=3):
    """Bytes well inside 0-255: on bytes torchvision rounds and clamps between the two directions."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(BOXES), channels, 48, 60)
    return torch.randint(64, 192, shape, dtype=torch.uint8, generator=generator)


def expected(image, box, flip, size, interpolation):
    mode = tv.InterpolationMode(interpolation)
    view = tv.resized_crop(image, *box.tolist(), [size, size], mode, antialias=True)
    return tv.horizontal_flip(view) if flip else view


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [1, 16, 32, 77])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("cropped", [crop, crop_in_turn])
def test_floats_equal_resized_crop(cropped, interpolation, size, channels):
    images = torch.rand(len(BOXES), channels, 48, 60)
    ours = cropped(images, BOXES, FLIP, size, interpolation)
    for row, image in enumerate(images):
        theirs = expected(image, BOXES[row], FLIP[row], size, interpolation)
        torch.testing.assert_close(ours[row], theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [16, 32, 77])
def test_bytes_equal_resized_crop_to_two_levels(interpolation, size):
    images = byte_pictures()
    ours = crop(images.float(), BOXES, FLIP, size, interpolation).clamp(0, 255)
    for row, image in enumerate(images):
        theirs = expected(image, BOXES[row], FLIP[row], size, interpolation).float()
        assert float((ours[row] - theirs).abs().max()) <= 2


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_crops_of_the_loader_equal_ours_to_two_levels(interpolation, channels):
    images = byte_pictures(channels)
    spec = ViewSpec(crop=Crop(interpolation=interpolation))
    ours = crop(images.float(), BOXES, FLIP, 32, interpolation).clamp(0, 255)
    for row, image in enumerate(images):
        theirs = cut(image, GeometricDraw(BOXES[row, None], None, FLIP[row, None]), spec, 32)
        assert theirs.dtype == torch.uint8 and theirs.shape == (channels, 32, 32)
        assert float((ours[row] - theirs.float()).abs().max()) <= 2


def test_drawn_boxes_of_large_images_equal_resized_crop():
    images = torch.rand(4, 3, 375, 500)
    drawn = draw_geometric(PRESETS["imagenet"][0], 4, 375, 500, torch.Generator().manual_seed(0))
    ours = crop(images, drawn.box, drawn.flip, 224, "bicubic")
    for row, image in enumerate(images):
        theirs = expected(image, drawn.box[row], drawn.flip[row], 224, "bicubic")
        torch.testing.assert_close(ours[row], theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_crops_in_turn_are_those_of_the_whole_batch_without_antialiasing_too(interpolation):
    images = torch.rand(len(BOXES), 3, 48, 60)
    for size in (1, 16, 77):
        parameters = (images, BOXES, FLIP, size, interpolation, False)
        torch.testing.assert_close(crop_in_turn(*parameters), crop(*parameters), rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", ["imagenet", "official", "pixpro"])
def test_large_images_are_cropped_in_turn_on_a_cpu_and_at_once_elsewhere(preset, monkeypatch):
    images = torch.randint(0, 256, (4, 3, 180, 240), dtype=torch.uint8)
    drawn = draw_geometric(PRESETS[preset][0], 4, 180, 240, torch.Generator().manual_seed(0))
    interpolation = PRESETS[preset][0].crop.interpolation
    monkeypatch.setattr(module, "crop", None)
    ours = geometric(images, drawn, 112, interpolation)
    monkeypatch.undo()
    at_once = crop(images / 255, drawn.box, drawn.flip, 112, interpolation, preset != "official").clamp(0, 1)
    torch.testing.assert_close(ours, at_once, rtol=0, atol=2e-5)


def test_resize_shows_the_whole_image_mirrored_where_asked():
    images = torch.rand(2, 1, 20, 30)
    ours = resize(images, torch.tensor([False, True]), 16)
    whole = tv.resize(images, [16, 16], antialias=True)
    torch.testing.assert_close(ours, torch.stack([whole[0], tv.horizontal_flip(whole[1])]))
