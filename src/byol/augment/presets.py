"""What a view is made of, and the published or tried combinations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal, get_args

from byol.config import PresetName
from byol.errors import UserError, require_known
from byol.methods import PIXEL_METHODS, Method

Semantics = Literal["torchvision", "official"]
_INTERPOLATIONS = ("bicubic", "bilinear")

MeanAndStd = tuple[Sequence[float], Sequence[float]]
"""Per channel, of pixels in [0,1]."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Crop:
    """Random resized crop. torchvision's (RandomResizedCrop) tries ten times, then takes the central crop;
    the official one tries once and cuts off what lies outside the image."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Area of the crop over the area of the image."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height, drawn log-uniformly."""
    interpolation: str = "bicubic"
    """bicubic or bilinear; both antialiased in torchvision's semantics, neither in the official ones."""

    def __post_init__(self) -> None:
        _check_ranges(self, 0, 1, "scale")
        _check_ranges(self, 0.01, 100, "ratio")
        require_known("interpolation", self.interpolation, _INTERPOLATIONS)


@dataclass(frozen=True)
class Affine:
    """Random scale, rotation, shear and translation about the centre; zeros outside."""

    scale: tuple[float, float] = (0.75, 1.1)
    rotation: float = 0.2
    """Radians to either side; the same for `shear`."""
    shear: float = 0.2
    translation: float = 0.15
    """To either side, in affine_grid's coordinates: the image reaches from -1 to 1."""

    def __post_init__(self) -> None:
        _check_ranges(self, 0.01, 100, "scale")
        _check_numbers(self, 0, math.pi, "rotation")
        _check_numbers(self, 0, 1.5, "shear")
        _check_numbers(self, 0, 2, "translation")


@dataclass(frozen=True)
class Jitter:
    """Brightness, contrast, saturation and hue in random order, as torchvision's ColorJitter or as the
    official code."""

    probability: float = 0.8
    brightness: float = 0.4
    """Factors are drawn from 1 +- this; the same for contrast and saturation. Official: what is added to
    every pixel is drawn from +- this."""
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    """Shift drawn from +- this, in turns of the colour wheel (at most 0.5)."""

    def __post_init__(self) -> None:
        _check_numbers(self, 0, 1, "probability")
        _check_numbers(self, 0, 100, "brightness", "contrast", "saturation")
        _check_numbers(self, 0, 0.5, "hue")


@dataclass(frozen=True)
class Intensity:
    """A gain and an offset for the whole image, for pictures without colour."""

    gain: tuple[float, float] = (0.6, 1.4)
    offset_std: float = 0.05

    def __post_init__(self) -> None:
        _check_ranges(self, 0, 100, "gain")
        _check_numbers(self, 0, 100, "offset_std")


@dataclass(frozen=True)
class ViewSpec:
    """One view's operations, in the order in which they are applied. None leaves an operation out."""

    crop: Crop | None = None
    affine: Affine | None = None
    flip: float = 0.0
    """Probability; the same for `grey`, `blur` and `solarize`."""
    jitter: Jitter | None = None
    intensity: Intensity | None = None
    grey: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    solarize_threshold: float = 0.5
    """Pixels at or above it (in [0,1]) are inverted."""
    semantics: Semantics = "torchvision"
    """Whose operations bear these names: torchvision's, or those of the official code of BYOL
    (`utils/dataset.py`, `utils/augmentations.py`); crop, jitter and the blur's border differ."""

    def __post_init__(self) -> None:
        if self.crop is not None and self.affine is not None:
            raise UserError("a view has a crop or an affine, not both: one of them must be null (None)")
        _check_numbers(self, 0, 1, "flip", "grey", "blur", "solarize", "solarize_threshold")
        _check_ranges(self, 0, 100, "blur_sigma")
        require_known("semantics", self.semantics, get_args(Semantics))


def _check_numbers(part: Any, low: float, high: float, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        if value is None or not low <= value <= high:
            raise UserError(f"{name} is {value}, it must lie between {low:g} and {high:g}")


def _check_ranges(part: Any, low: float, high: float, name: str) -> None:
    pair = getattr(part, name)
    if pair is None or len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise UserError(
            f"{name} is {pair}, it must be two numbers between {low:g} and {high:g}, the smaller first"
        )


# BYOL, Table 6: T blurs always and never solarizes, T' blurs 1 in 10 and solarizes 1 in 5.
_IMAGENET = ViewSpec(crop=Crop(), flip=0.5, jitter=Jitter(), grey=0.2, blur=1.0)
# The same table with the operations of the code that the published numbers come from.
_OFFICIAL = replace(_IMAGENET, semantics="official")
# As PixPro's code (`contrast/data/transform.py`).
_PIXPRO = replace(_IMAGENET, crop=Crop(interpolation="bilinear"))
# 32-96 pixels: too few for a blur to leave much (as solo-learn and lightly on CIFAR-10).
_SMALL = replace(_PIXPRO, blur=0.0)
# SimSiam's (arXiv 2011.10566, section 3): both views alike, no solarizing, and for CIFAR-10 no blur. How
# often it blurs its code tells, which follows MoCo v2.
_SIMSIAM = replace(
    _PIXPRO, crop=Crop(scale=(0.2, 1.0), interpolation="bilinear"), jitter=Jitter(saturation=0.4), blur=0.5
)
_SIMSIAM_SMALL = replace(_SIMSIAM, blur=0.0)
# Digits and letters: mirroring or cropping them changes what they are.
_GLYPH = ViewSpec(affine=Affine(), intensity=Intensity())

PRESETS: dict[str, tuple[ViewSpec, ViewSpec]] = {
    "imagenet": (_IMAGENET, replace(_IMAGENET, blur=0.1, solarize=0.2)),
    "official": (_OFFICIAL, replace(_OFFICIAL, blur=0.1, solarize=0.2)),
    "simsiam": (_SIMSIAM, _SIMSIAM),
    "simsiam-small": (_SIMSIAM_SMALL, _SIMSIAM_SMALL),
    "pixpro": (_PIXPRO, replace(_PIXPRO, blur=0.1, solarize=0.2)),
    "small": (_SMALL, replace(_SMALL, solarize=0.2)),
    "glyph": (_GLYPH, _GLYPH),
}


def preset_named(name: str) -> tuple[ViewSpec, ViewSpec]:
    """Return the two view specifications of a preset.

    Raises:
        UserError: no preset has this name.
    """
    require_known("preset", name, PRESETS)
    return PRESETS[name]


def natural_preset(data: str, size: int, method: Method = "byol") -> PresetName:
    """Return the preset that suits a data source (by its name), a side of images in pixels, and a method."""
    if method in PIXEL_METHODS:  # which need crops
        return "small" if size <= 96 else "pixpro"
    if data == "digits" or data.startswith("emnist/"):
        return "glyph"
    if method == "simsiam":
        return "simsiam-small" if size <= 96 else "simsiam"
    return "small" if size <= 96 else "imagenet"


def pixel_statistics(
    channels: int, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> MeanAndStd:
    """Return the mean and standard deviation per channel: those given for RGB, ImageNet's by default, or for
    other counts their averages over the three."""
    if channels == 3:
        return mean, std
    grey_mean, grey_std = (round(fmean(values), 6) for values in (mean, std))
    return (grey_mean,) * channels, (grey_std,) * channels
