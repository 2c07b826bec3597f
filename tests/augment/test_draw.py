"""What is drawn, against torchvision's own sampling and the stated ranges and probabilities."""

import math
from dataclasses import replace

import pytest
import torch
from torchvision.transforms import v2

from byol.augment.draw import (
    BRIGHTNESS,
    CONTRAST,
    NONE,
    SATURATION,
    draw,
    draw_geometric,
    draw_geometric_pair,
    draw_photometric,
)
from byol.augment.presets import PRESETS, Affine, Crop, Jitter, ViewSpec

COUNT = 6000
FIRST, SECOND = PRESETS["imagenet"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ks_distance(left, right):
    """Return the two-sample Kolmogorov-Smirnov statistic."""
    left, right = left.sort().values, right.sort().values
    points = torch.cat([left, right])
    shares = [torch.searchsorted(sample, points, right=True) / len(sample) for sample in (left, right)]
    return float((shares[0] - shares[1]).abs().max())


def is_uniform(sample, low, high):
    """Kolmogorov-Smirnov against the uniform distribution, at a level of about 1 in 1000."""
    assert low <= float(sample.min()) and float(sample.max()) <= high
    shares = (sample.sort().values - low) / (high - low)
    steps = torch.arange(1, len(sample) + 1) / len(sample)
    return float((shares - steps).abs().max()) < 1.95 / math.sqrt(len(sample))


def happens(events, probability):
    """Binomial, within four standard deviations."""
    count = events.numel()
    return abs(float(events.float().mean()) - probability) < 4 * math.sqrt(
        max(probability * (1 - probability), 1e-9) / count
    )


@pytest.mark.parametrize(("height", "width"), [(375, 500), (64, 64), (300, 100), (100, 450), (40, 37)])
def test_crops_are_distributed_as_torchvision_s(height, width):
    """100x450 and 300x100 are so far from the allowed aspects that the ten tries often fail."""
    box = draw_geometric(FIRST, COUNT, height, width, generator()).box
    torch.manual_seed(0)
    image, crop = torch.empty(3, height, width), v2.RandomResizedCrop(8)
    drawn = [crop.make_params([image]) for _ in range(COUNT)]
    theirs = torch.tensor([[row[name] for name in ("top", "left", "height", "width")] for row in drawn])
    limit = 1.95 * math.sqrt(2 / COUNT)
    for ours_column, theirs_column in zip(box.unbind(1), theirs.unbind(1), strict=True):
        assert ks_distance(ours_column.float(), theirs_column.float()) < limit
    area, aspect = box[:, 2] * box[:, 3], (box[:, 3] / box[:, 2]).log()
    assert ks_distance(area.float(), (theirs[:, 2] * theirs[:, 3]).float()) < limit
    assert ks_distance(aspect, (theirs[:, 3] / theirs[:, 2]).log()) < limit


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 300), (300, 2), (5, 7), (375, 500)])
def test_boxes_lie_in_the_image(height, width):
    top, left, box_height, box_width = draw_geometric(FIRST, 2000, height, width, generator()).box.unbind(1)
    assert int(top.min()) >= 0 and int(left.min()) >= 0
    assert int(box_height.min()) >= 1 and int(box_width.min()) >= 1
    assert int((top + box_height).max()) <= height and int((left + box_width).max()) <= width


def test_where_no_try_fits_the_central_crop_is_taken():
    wide = draw_geometric(FIRST, 8, 30, 3000, generator()).box
    assert torch.equal(wide, torch.tensor([[0, 1480, 30, 40]]).expand(8, 4))
    high = draw_geometric(FIRST, 8, 3000, 30, generator()).box
    assert torch.equal(high, torch.tensor([[1480, 0, 40, 30]]).expand(8, 4))


def test_positions_are_uniform():
    spec = ViewSpec(crop=Crop(scale=(0.25, 0.25), ratio=(1.0, 1.0)))
    box = draw_geometric(spec, COUNT, 400, 400, generator()).box
    assert (box[:, 2:] == 200).all()
    for offset in box[:, :2].unbind(1):
        jittered = offset + torch.rand(COUNT, generator=generator(1))  # 0-200 become continuous
        assert is_uniform(jittered, 0, 201)


def test_probabilities_are_the_paper_s():
    geometric = draw_geometric(FIRST, COUNT, 64, 64, generator())
    first = draw_photometric(FIRST, COUNT, 3, generator())
    second = draw_photometric(SECOND, COUNT, 3, generator())
    assert happens(geometric.flip, 0.5)
    for view in (first, second):
        assert happens((view.blend_kind != NONE).any(dim=1), 0.8)
        assert happens(view.hue != 0, 0.8)
        assert happens(view.grey, 0.2)
    assert (first.blur_sigma > 0).all() and first.threshold is None
    assert happens(second.blur_sigma > 0, 0.1)
    assert happens(second.threshold == 0.5, 0.2)
    assert set(second.threshold.tolist()) == {0.5, 2.0}


def test_sigma_is_uniform():
    assert is_uniform(draw_photometric(FIRST, COUNT, 3, generator()).blur_sigma, 0.1, 2.0)


def test_jitter_factors_are_uniform_in_the_paper_s_ranges():
    drawn = draw_photometric(FIRST, COUNT, 3, generator())
    for kind, strength in [(BRIGHTNESS, 0.4), (CONTRAST, 0.4), (SATURATION, 0.2)]:
        factor = drawn.blend_factor[drawn.blend_kind == kind]
        assert is_uniform(factor, 1 - strength - 1e-6, 1 + strength + 1e-6)
    assert is_uniform(drawn.hue[drawn.hue != 0], -0.1 - 1e-6, 0.1 + 1e-6)
    assert (drawn.blend_factor[drawn.blend_kind == NONE] == 1).all()


def test_factors_are_never_negative():
    spec = ViewSpec(jitter=Jitter(probability=1.0, brightness=2.0))
    drawn = draw_photometric(spec, COUNT, 3, generator())
    assert is_uniform(drawn.blend_factor[drawn.blend_kind == BRIGHTNESS], 0, 3)


def test_all_24_orders_are_equally_likely():
    kinds = draw_photometric(FIRST, COUNT, 3, generator()).blend_kind
    kinds = kinds[(kinds != NONE).any(dim=1)]
    assert (torch.sort(kinds, dim=1).values == torch.tensor([0, 0, 0, 1, 2, 3])).all()
    orders, counts = kinds.unique(dim=0, return_counts=True)
    assert len(orders) == 24
    expected = len(kinds) / 24
    assert float(((counts - expected) ** 2 / expected).sum()) < 49.7  # chi-squared, 23 degrees, 1 in 1000


def test_the_glyphs_intensity():
    drawn = draw_photometric(PRESETS["glyph"][0], COUNT, 1, generator())
    assert is_uniform(drawn.gain, 0.6 - 1e-6, 1.4 + 1e-6)
    assert abs(float(drawn.offset.std()) - 0.05) < 0.003 and abs(float(drawn.offset.mean())) < 0.003


def test_the_draw_follows_the_generator():
    left, right = (draw(SECOND, 8, 50, 60, 3, generator(7)) for _ in range(2))
    for name, value in vars(left.photometric).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(right.photometric, name))
    assert torch.equal(left.geometric.box, right.geometric.box)
    assert not torch.equal(left.geometric.box, draw(SECOND, 8, 50, 60, 3, generator(8)).geometric.box)


@pytest.mark.parametrize(
    "other",
    [
        {"crop": Crop(scale=(0.05, 0.1), ratio=(1.0, 1.0))},
        {"flip": 1.0},
        {"semantics": "official"},
        {"crop": None, "affine": Affine()},
    ],
    ids=lambda other: next(iter(other)),
)
def test_views_of_one_image_are_drawn_as_each_is_meant(other):
    plain = ViewSpec(crop=Crop(scale=(1.0, 1.0), ratio=(1.0, 1.0)))
    differs = replace(plain, **other)
    for specs in ((plain, differs), (differs, plain)):
        for spec, drawn in zip(specs, draw_geometric_pair(specs, 64, 64, generator()), strict=True):
            assert drawn.semantics == spec.semantics and drawn.flip.tolist() == [spec.flip == 1]
            assert (drawn.affine is None) == (spec.affine is None)
            assert (drawn.box is None) == (spec.crop is None)
            if drawn.box is not None:
                area = float(drawn.box[0, 2] * drawn.box[0, 3]) / 64**2
                assert spec.crop.scale[0] * 0.9 <= area <= spec.crop.scale[1] * 1.1
