"""The whole chain of operations against torchvision's functional calls, one image at a time."""

import pytest
import torch
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as tv

from byol.augment.apply import apply
from byol.augment.blur import kernel_radius
from byol.augment.draw import BRIGHTNESS, CONTRAST, SATURATION, draw
from byol.augment.presets import PRESETS

ADJUST = {BRIGHTNESS: tv.adjust_brightness, CONTRAST: tv.adjust_contrast, SATURATION: tv.adjust_saturation}
LEVEL = 1 / 255


def pictures(count, height, width, channels=3):
    """Smooth colours with some noise, floats in [0,1]."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    noise = 0.2 * torch.rand(count, channels, height, width, generator=generator) - 0.1
    return (interpolate(coarse, (height, width), mode="bicubic") + noise).clamp(0, 1)


def jittered(image, drawn, row):
    for slot in range(7):  # three blends, the hue, three blends
        if slot == 3:
            if drawn.hue is not None and drawn.hue[row] != 0:
                image = tv.adjust_hue(image, float(drawn.hue[row]))
            continue
        column = slot if slot < 3 else slot - 1
        kind = int(drawn.blend_kind[row, column])
        if kind:
            image = ADJUST[kind](image, float(drawn.blend_factor[row, column]))
    return image


def reference(image, drawn, row, size, interpolation):
    """One view by torchvision, and the pixels whose solarization a rounding error could turn."""
    geometric, photometric = drawn.geometric, drawn.photometric
    box = geometric.box[row].tolist()
    # Bicubic overshoots; torchvision leaves that to the uint8 conversion, floats have to be clamped.
    view = tv.resized_crop(image, *box, [size, size], tv.InterpolationMode(interpolation), antialias=True)
    view = view.clamp(0, 1)
    if geometric.flip[row]:
        view = tv.horizontal_flip(view)
    view = jittered(view, photometric, row)
    if photometric.grey is not None and photometric.grey[row]:
        view = tv.rgb_to_grayscale(view, 3)
    if photometric.blur_sigma is not None and photometric.blur_sigma[row] > 0:
        view = tv.gaussian_blur(view, 2 * kernel_radius(size) + 1, float(photometric.blur_sigma[row]))
    unsure = torch.zeros_like(view, dtype=torch.bool)
    if photometric.threshold is not None and photometric.threshold[row] <= 1:
        unsure = (view - photometric.threshold[row]).abs() < LEVEL
        view = tv.solarize(view, float(photometric.threshold[row]))
    return view, unsure


def largest_difference(images, spec, size, seed):
    """Largest difference over a batch, and the jitter orders that occurred in it."""
    generator = torch.Generator().manual_seed(seed)
    drawn = draw(spec, len(images), *images.shape[2:], images.shape[1], generator)
    interpolation = spec.crop.interpolation
    ours = apply(images, drawn, size, interpolation)
    worst = 0.0
    for row, image in enumerate(images):
        expected, unsure = reference(image, drawn, row, size, interpolation)
        worst = max(worst, float((ours[row] - expected).abs().masked_fill(unsure, 0).max()))
    kinds = drawn.photometric.blend_kind
    return worst, {tuple(order) for order in kinds[kinds.ne(0).any(1)].tolist()}


@pytest.mark.parametrize("preset", ["imagenet", "small"])
def test_a_thousand_views_equal_torchvision(preset):
    images = pictures(500, 40, 36)
    orders = set()
    for seed, spec in enumerate(PRESETS[preset]):
        worst, seen = largest_difference(images, spec, 32, seed)
        assert worst < LEVEL
        orders |= seen
    assert len(orders) == 24


@pytest.mark.parametrize("preset", ["imagenet", "small"])
def test_large_views_equal_torchvision(preset):
    images = pictures(6, 250, 300)
    for spec in PRESETS[preset]:
        worst, _ = largest_difference(images, spec, 224, seed=5)
        assert worst < LEVEL


@pytest.mark.parametrize("channels", [1, 5])
def test_without_rgb_brightness_and_contrast_stay(channels):
    # torchvision's contrast pivots on a grey that it has for 1 and 3 channels only.
    images = pictures(200, 20, 20, channels)
    spec = PRESETS["small"][1]
    if channels == 1:
        assert largest_difference(images, spec, 16, 0)[0] < LEVEL
    drawn = draw(spec, 200, 20, 20, channels, torch.Generator().manual_seed(0)).photometric
    assert set(drawn.blend_kind.unique().tolist()) == {0, BRIGHTNESS, CONTRAST}
    assert drawn.hue is None and drawn.grey is None
