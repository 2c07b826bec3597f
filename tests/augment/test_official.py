"""The preset `official` against the formulas of the official code, in float64, one image at a time.

The reference is written from `utils/dataset.py` and `utils/augmentations.py` with numpy and `colorsys`.
"""

import colorsys
import math

import numpy as np
import pytest
import torch

from byol.augment import apply as apply_module
from byol.augment.apply import apply
from byol.augment.blur import gaussian_blur
from byol.augment.colour import official_blend
from byol.augment.draw import (
    BRIGHTNESS,
    CONTRAST,
    NONE,
    SATURATION,
    GeometricDraw,
    draw,
    draw_geometric,
    draw_photometric,
)
from byol.augment.presets import PRESETS
from byol.augment.resample import crop
from byol.data.batches import Batch, BatchPlan
from byol.data.crops import cut
from byol.randomness import VIEWS, derived_generator
from byol.training.view_makers import StreamedViews

FIRST, SECOND = PRESETS["official"]
COUNT = 6000
LEVEL = 1 / 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# The reference: images are float64 [C,H,W].


def brightened(image, delta):
    return np.clip(image + delta, 0, 1)


def contrasted(image, factor):
    means = [channel.mean() for channel in image]
    return np.clip(np.stack([factor * (c - m) + m for c, m in zip(image, means, strict=True)]), 0, 1)


def with_hsv(image, change):
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in image.reshape(3, -1).T]
    return np.clip(np.array(pixels).T.reshape(image.shape), 0, 1)


def saturated(image, factor):
    return with_hsv(image, lambda h, s, v: (h, min(max(s * factor, 0.0), 1.0), v))


def turned(image, delta):
    return with_hsv(image, lambda h, s, v: ((h + delta) % 1.0, s, v))


def greyed(image):
    return np.clip(np.stack([0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]] * 3), 0, 1)


def blurred(image, sigma):
    """Convolve with 2 int(H / 10 / 2) + 1 taps a side, zeros outside."""
    radius = int(image.shape[1] / 10 / 2)
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    for axis in (1, 2):
        padding = [(0, 0)] * 3
        padding[axis] = (radius, radius)
        padded, length = np.pad(image, padding), image.shape[axis]
        image = sum(t * padded.take(range(i, i + length), axis) for i, t in enumerate(taps))
    return image


def solarized(image, threshold):
    return np.where(image < threshold, image, 1 - image)


def keys(x):
    x = abs(x)
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resize_matrix(length, size):
    """TensorFlow's bicubic without antialiasing: four taps; those outside count for nothing."""
    matrix = np.zeros((size, length))
    for row in range(size):
        centre = (row + 0.5) * length / size - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            if 0 <= tap < length:
                matrix[row, tap] = keys(tap - centre)
    return matrix / matrix.sum(axis=1, keepdims=True)


def cropped(image, box, flip, size):
    top, left, height, width = box
    part = image[:, top : top + height, left : left + width]
    view = np.clip(resize_matrix(height, size) @ part @ resize_matrix(width, size).T, 0, 1)
    return view[:, :, ::-1] if flip else view


def coloured(image, drawn, row):
    """Everything after the crop; also the pixels whose solarization a rounding error could turn."""
    change = {BRIGHTNESS: brightened, CONTRAST: contrasted, SATURATION: saturated}
    for slot in range(6):
        if slot == 3 and drawn.hue is not None and drawn.hue[row] != 0:
            image = turned(image, float(drawn.hue[row]))
        if kind := int(drawn.blend_kind[row, slot]):
            image = change[kind](image, float(drawn.blend_factor[row, slot]))
    if drawn.grey is not None and drawn.grey[row]:
        image = greyed(image)
    if drawn.blur_sigma[row] > 0:
        image = blurred(image, float(drawn.blur_sigma[row]))
    unsure = np.zeros(image.shape, dtype=bool)
    if drawn.threshold is not None and drawn.threshold[row] <= 1:
        unsure = np.abs(image - 0.5) < 1e-4
        image = solarized(image, 0.5)
    return np.clip(image, 0, 1), unsure


def difference(ours, expected, unsure=False):
    return float(np.abs(ours.double().numpy() - expected)[~np.broadcast_to(unsure, expected.shape)].max())


def pictures(count, height, width, channels=3):
    """Colours with grey, black, white and fully saturated pixels among them."""
    images = torch.rand(count, channels, height, width, generator=generator(3))
    images[:, :, 0] = images[:, :1, 0]
    images[:, :, 1] = (images[:, :, 1] > 0.5).float()
    images[:, :, 2], images[:, :, 3] = 0.0, 1.0
    return images


@pytest.mark.parametrize(
    ("kind", "change", "factors"),
    [
        (BRIGHTNESS, brightened, (-0.4, -0.1, 0.0, 0.2, 0.4)),
        (CONTRAST, contrasted, (0.0, 0.6, 1.0, 1.4, 2.5)),
        (SATURATION, saturated, (0.0, 0.8, 1.0, 1.2, 9.0)),
    ],
)
def test_each_operation_equals_its_formula(kind, change, factors):
    images = pictures(len(factors), 9, 7)
    ours = official_blend(images, torch.full((len(factors),), kind), torch.tensor(factors))
    for row, factor in enumerate(factors):
        assert difference(ours[row], change(images[row].double().numpy(), factor)) < 1e-6


def test_operations_of_all_kinds_share_a_batch():
    images, kinds = pictures(4, 9, 7), torch.tensor([NONE, BRIGHTNESS, CONTRAST, SATURATION])
    factors = torch.tensor([1.0, -0.3, 1.4, 1.4])
    together = official_blend(images, kinds, factors)
    assert torch.equal(together[0], images[0])
    for row in range(4):
        alone = official_blend(images[row, None], kinds[row, None], factors[row, None])
        assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("channels", [1, 5])
def test_contrast_pivots_on_every_channel_s_own_mean(channels):
    images = pictures(1, 9, 7, channels)
    ours = official_blend(images, torch.tensor([CONTRAST]), torch.tensor([0.6]))
    assert difference(ours[0], contrasted(images[0].double().numpy(), 0.6)) < 1e-6


@pytest.mark.parametrize("size", [8, 19, 20, 33, 64, 224])
def test_the_blur_has_zeros_around_the_image(size):
    sigma = torch.tensor([0.1, 1.0, 2.0])
    images = pictures(3, size, size)
    ours = gaussian_blur(images, sigma, border="constant")
    for row in range(3):
        assert difference(ours[row], blurred(images[row].double().numpy(), float(sigma[row]))) < 2e-6


def test_the_blur_s_kernel_has_23_taps_at_224_and_1_below_20():
    point = torch.zeros(1, 1, 224, 224)
    point[0, 0, 112, 112] = 1
    reached = gaussian_blur(point, torch.tensor([50.0]), border="constant")[0, 0] > 0
    assert int(reached.any(dim=0).sum()) == int(reached.any(dim=1).sum()) == 23
    small = torch.rand(1, 3, 19, 19)
    assert torch.equal(gaussian_blur(small, torch.tensor([2.0]), border="constant"), small)


@pytest.mark.parametrize("box", [[0, 0, 30, 42], [3, 5, 8, 7], [3, 5, 16, 16], [29, 41, 1, 1], [2, 0, 25, 2]])
@pytest.mark.parametrize("flip", [False, True])
def test_the_crop_is_bicubic_without_antialiasing(box, flip):
    image = torch.randint(0, 256, (3, 30, 42), dtype=torch.uint8, generator=generator())
    boxes, flips = torch.tensor([box]), torch.tensor([flip])
    expected = cropped(image.double().numpy() / 255, box, flip, 16)
    ours = crop(image[None].float() / 255, boxes, flips, 16, "bicubic", antialias=False).clamp(0, 1)
    assert difference(ours[0], expected) < 1e-5
    # The loader's workers ship bytes: rounded, but nothing else.
    bytes_ = cut(image, GeometricDraw(boxes, None, flips, "official"), FIRST, 16)
    assert bytes_.dtype == torch.uint8
    assert difference(bytes_ / 255, expected) < 0.501 * LEVEL


def test_the_whole_chain_in_all_24_orders():
    orders = set()
    for seed, spec in enumerate((FIRST, SECOND)):
        images = pictures(150, 26, 30)
        drawn = draw(spec, len(images), 26, 30, 3, generator(seed))
        ours = apply(images, drawn, 24, "bicubic")
        for row, image in enumerate(images.double().numpy()):
            box, flip = drawn.geometric.box[row].tolist(), bool(drawn.geometric.flip[row])
            expected, unsure = coloured(cropped(image, box, flip, 24), drawn.photometric, row)
            assert difference(ours[row], expected, unsure) < 1e-4
        kinds, hue = drawn.photometric.blend_kind, drawn.photometric.hue
        orders |= {tuple(order) for order in kinds[hue != 0].tolist()}
    assert len(orders) == 24


def test_the_chain_without_rgb(monkeypatch):
    images = pictures(40, 26, 30, channels=5)
    drawn = draw(SECOND, 40, 26, 30, 5, generator())
    assert set(drawn.photometric.blend_kind.unique().tolist()) == {NONE, BRIGHTNESS, CONTRAST}
    assert drawn.photometric.hue is None and drawn.photometric.grey is None
    ours = apply(images, drawn, 24, "bicubic")
    # As on an accelerator: every operation on all images, whatever they drew.
    monkeypatch.setattr(apply_module, "_to_concerned", apply_module._to_all)
    everywhere = apply(images, drawn, 24, "bicubic")
    for row, image in enumerate(images.double().numpy()):
        box, flip = drawn.geometric.box[row].tolist(), bool(drawn.geometric.flip[row])
        expected, unsure = coloured(cropped(image, box, flip, 24), drawn.photometric, row)
        assert difference(ours[row], expected, unsure) < 1e-4
        assert difference(everywhere[row], expected, unsure) < 1e-4


def test_crops_that_workers_cut_get_the_same_colours():
    crops = torch.randint(0, 256, (60, 2, 3, 24, 24), dtype=torch.uint8, generator=generator())
    plan = BatchPlan(60, 60, seed=5)
    boxes, flipped = torch.rand(60, 2, 4), torch.rand(60, 2) < 0.5
    ours = StreamedViews((FIRST, SECOND), plan)(Batch(7, crops, boxes=boxes, flipped=flipped))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    again = derived_generator(5, VIEWS, 7, 0)
    for view, spec in enumerate((FIRST, SECOND)):
        drawn = draw_photometric(spec, 60, 3, again)
        assert torch.equal(ours[view].box, boxes[:, view])
        assert torch.equal(ours[view].flipped, flipped[:, view])
        for row in range(60):
            expected, unsure = coloured(crops[row, view].double().numpy() / 255, drawn, row)
            normalized = (expected - mean[:, None, None]) / std[:, None, None]
            assert difference(ours[view].image[row], normalized, unsure) < 5e-4


def ks_distance(left, right):
    """Return the two-sample Kolmogorov-Smirnov statistic."""
    left, right = np.sort(left), np.sort(right)
    points = np.concatenate([left, right])
    shares = [np.searchsorted(sample, points, side="right") / len(sample) for sample in (left, right)]
    return np.abs(shares[0] - shares[1]).max()


@pytest.mark.parametrize(("height", "width"), [(375, 500), (64, 64), (300, 100), (100, 450)])
def test_crops_are_drawn_once_and_cut_to_the_image(height, width):
    ours = draw_geometric(FIRST, COUNT, height, width, generator()).box.numpy()
    random = np.random.default_rng(0)
    area = random.uniform(0.08, 1.0, COUNT) * height * width
    aspect = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3), COUNT))
    widths = np.minimum(np.round(np.sqrt(area * aspect)), width).astype(int)
    heights = np.minimum(np.round(np.sqrt(area / aspect)), height).astype(int)
    left, top = random.integers(0, width - widths + 1), random.integers(0, height - heights + 1)
    for column, theirs in zip(ours.T, (top, left, heights, widths), strict=True):
        assert ks_distance(column, theirs) < 1.95 * math.sqrt(2 / COUNT)
    assert ks_distance(ours[:, 3] / ours[:, 2], widths / heights) < 1.95 * math.sqrt(2 / COUNT)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 300), (375, 500)])
def test_boxes_lie_in_the_image(height, width):
    top, left, box_height, box_width = draw_geometric(FIRST, 2000, height, width, generator()).box.unbind(1)
    assert int(top.min()) >= 0 and int(left.min()) >= 0
    assert int(box_height.min()) >= 1 and int(box_width.min()) >= 1
    assert int((top + box_height).max()) <= height and int((left + box_width).max()) <= width


def is_uniform(sample, low, high):
    assert low - 1e-6 <= float(sample.min()) and float(sample.max()) <= high + 1e-6
    shares = (sample.sort().values - low) / (high - low)
    steps = torch.arange(1, len(sample) + 1) / len(sample)
    return float((shares - steps).abs().max()) < 1.95 / math.sqrt(len(sample))


def happens(events, probability):
    deviation = math.sqrt(max(probability * (1 - probability), 1e-9) / events.numel())
    return abs(float(events.float().mean()) - probability) < 4 * deviation


def test_probabilities_and_ranges_are_the_table_s():
    first, second = (draw_photometric(spec, COUNT, 3, generator(i)) for i, spec in enumerate((FIRST, SECOND)))
    for view in (first, second):
        jittered = view.hue != 0
        assert happens(jittered, 0.8) and happens(view.grey, 0.2)
        assert torch.equal((view.blend_kind != NONE).sum(dim=1), 3 * jittered)
        for kind, low, high in [(BRIGHTNESS, -0.4, 0.4), (CONTRAST, 0.6, 1.4), (SATURATION, 0.8, 1.2)]:
            assert is_uniform(view.blend_factor[view.blend_kind == kind], low, high)
        assert is_uniform(view.hue[jittered], -0.1, 0.1)
        assert is_uniform(view.blur_sigma[view.blur_sigma > 0], 0.1, 2.0)
        orders, counts = view.blend_kind[jittered].unique(dim=0, return_counts=True)
        expected = int(jittered.sum()) / 24
        assert len(orders) == 24
        assert float(((counts - expected) ** 2 / expected).sum()) < 49.7  # chi-squared, 1 in 1000
    assert (first.blur_sigma > 0).all() and first.threshold is None
    assert happens(second.blur_sigma > 0, 0.1) and happens(second.threshold == 0.5, 0.2)
    assert happens(draw_geometric(FIRST, COUNT, 64, 64, generator()).flip, 0.5)


def test_the_table_is_that_of_imagenet():
    for ours, theirs in zip(PRESETS["official"], PRESETS["imagenet"], strict=True):
        assert {**vars(ours), "semantics": "torchvision"} == vars(theirs)
