"""The presets, number by number, as their papers and codes have them; nothing here is read from ours."""

from dataclasses import asdict
from typing import Any, get_args

import pytest

from byol.augment.presets import PRESETS, Affine, Intensity, ViewSpec, natural_preset
from byol.methods import PIXEL_METHODS, Method

PUBLISHED: dict[str, Any] = {  # BYOL, Table 6; sigmas of appendix B, the threshold of its code
    "affine": None,
    "intensity": None,
    "crop": {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), "interpolation": "bicubic"},
    "flip": 0.5,
    "jitter": {"probability": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
    "grey": 0.2,
    "blur_sigma": (0.1, 2.0),
    "solarize_threshold": 0.5,
    "semantics": "torchvision",
}
BILINEAR = PUBLISHED | {"crop": PUBLISHED["crop"] | {"interpolation": "bilinear"}}
SIMSIAM = BILINEAR | {  # arXiv 2011.10566, section 3
    "crop": BILINEAR["crop"] | {"scale": (0.2, 1.0)},
    "jitter": PUBLISHED["jitter"] | {"saturation": 0.4},
}
EXPECTED = {  # what both views share, then blur and solarize of each
    "imagenet": (PUBLISHED, (1.0, 0.0), (0.1, 0.2)),
    "official": (PUBLISHED | {"semantics": "official"}, (1.0, 0.0), (0.1, 0.2)),
    "simsiam": (SIMSIAM, (0.5, 0.0), (0.5, 0.0)),
    "simsiam-small": (SIMSIAM, (0.0, 0.0), (0.0, 0.0)),
    "pixpro": (BILINEAR, (1.0, 0.0), (0.1, 0.2)),
    "small": (BILINEAR, (0.0, 0.0), (0.0, 0.2)),
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("view", [0, 1])
def test_preset_is_the_published_one(name: str, view: int) -> None:
    shared, *own = EXPECTED[name]
    blur, solarize = own[view]
    assert asdict(PRESETS[name][view]) == shared | {"blur": blur, "solarize": solarize}


def test_glyphs_are_neither_mirrored_nor_cropped() -> None:
    affine = Affine(scale=(0.75, 1.1), rotation=0.2, shear=0.2, translation=0.15)
    expected = ViewSpec(affine=affine, intensity=Intensity(gain=(0.6, 1.4), offset_std=0.05))
    assert PRESETS["glyph"] == (expected, expected)
    assert PRESETS.keys() == {*EXPECTED, "glyph"}


@pytest.mark.parametrize(
    ("method", "small", "large"),
    [
        ("byol", "small", "imagenet"),
        ("simsiam", "simsiam-small", "simsiam"),
        *((method, "small", "pixpro") for method in PIXEL_METHODS),
    ],
)
def test_small_ends_at_96_pixels(method: Method, small: str, large: str) -> None:
    found = [natural_preset("folder:x", size, method) for size in (8, 96, 97, 224)]
    assert found == [small, small, large, large]


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("data", ["digits", "emnist/letters"])
def test_what_is_written_keeps_its_shape_but_where_crops_are_needed(method: Method, data: str) -> None:
    assert natural_preset(data, 28, method) == ("small" if method in PIXEL_METHODS else "glyph")
