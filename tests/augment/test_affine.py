"""Affine views against torch's `affine_grid` + `grid_sample`, and the meaning of their parameters."""

import math

import torch
import torch.nn.functional as F

from byol.augment.draw import draw_geometric
from byol.augment.presets import PRESETS, Affine, ViewSpec
from byol.augment.resample import affine

STILL = {"rotation": 0.0, "shear": 0.0, "translation": 0.0, "scale": (1.0, 1.0)}
UPRIGHT = torch.zeros(1, dtype=torch.bool)


def test_it_equals_affine_grid_and_grid_sample():
    images = torch.rand(64, 1, 28, 28)
    maps = draw_geometric(PRESETS["glyph"][0], 64, 28, 28, torch.Generator().manual_seed(0)).affine
    flip = torch.arange(64) % 2 == 0
    grid = F.affine_grid(maps, [64, 1, 32, 32], align_corners=False)
    expected = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    expected[flip] = expected[flip].flip(3)
    torch.testing.assert_close(affine(images, maps, flip, 32), expected, rtol=0, atol=1e-4)


def maps_of(**settings):
    spec = ViewSpec(affine=Affine(**{**STILL, **settings}))
    return draw_geometric(spec, 2000, 28, 28, torch.Generator().manual_seed(0)).affine


def test_a_map_that_does_nothing_is_the_identity():
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(2000, 2, 3)
    torch.testing.assert_close(maps_of(), expected)


def test_a_smaller_scale_shrinks_the_glyph():
    image = torch.ones(1, 1, 32, 32)
    half = affine(image, maps_of(scale=(0.5, 0.5))[:1], UPRIGHT, 32)
    assert abs(float(half.mean()) - 0.25) < 0.02


def test_scale_is_uniform_in_its_range():
    scale = 1 / maps_of(scale=(0.75, 1.1))[:, 0, 0]
    assert 0.75 <= float(scale.min()) < 0.76 and 1.09 < float(scale.max()) <= 1.1
    assert abs(float(scale.mean()) - 0.925) < 0.01


def test_rotation_keeps_area_and_stays_in_its_range():
    linear = maps_of(rotation=0.2)[:, :, :2]
    torch.testing.assert_close(torch.linalg.det(linear), torch.ones(2000))
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])
    assert 0.19 < float(angle.abs().max()) <= 0.2 + 1e-6


def test_shear_is_an_angle():
    shear = maps_of(shear=0.2)[:, 0, 1]
    assert math.tan(0.19) < float(shear.abs().max()) <= math.tan(0.2) + 1e-6


def test_translation_moves_by_a_fraction_of_half_the_side():
    maps = maps_of(translation=0.15)
    shift = maps[:, :, 2]  # in units of half a side
    assert 0.145 < float(shift.abs().max()) <= 0.15 + 1e-6
    image = torch.zeros(1, 1, 100, 100)
    image[0, 0, 50, 50] = 1
    moved = affine(image, maps[:1], UPRIGHT, 100)[0, 0]
    row, column = divmod(int(moved.argmax()), 100)
    assert abs(row - (50 - 50 * float(shift[0, 1]))) <= 1
    assert abs(column - (50 - 50 * float(shift[0, 0]))) <= 1
