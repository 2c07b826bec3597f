"""Draw: one set of random parameters for each image, from an explicit generator.

Everything random about a view is decided here, on the generator's device and without a
synchronisation; `byol.augment.apply` is a plain function of images and these parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
from torch import Generator, Tensor

from byol.augment.presets import Affine, Crop, Intensity, Jitter, Semantics, ViewSpec

NONE, BRIGHTNESS, CONTRAST, SATURATION = 0, 1, 2, 3
"""Kinds of blend in `PhotometricDraw.blend_kind`. Hue is the fourth operation of the jitter."""
_HUE = 0  # Hue's column in the drawn order; the blends' columns are their kinds.


class _Parameters:
    """Tensors with one row an image, and groups of such, moved and sliced together."""

    def to(self, device: torch.device) -> Self:
        """Move to a device; `byol.augment.transfer` does so without waiting for it."""
        return self.map(lambda tensor: tensor.to(device))

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return self.map(lambda tensor: tensor[rows])

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in the order in which `map` takes them."""
        values = vars(self).values()
        groups = (value.tensors() if isinstance(value, _Parameters) else [value] for value in values)
        return [value for group in groups for value in group if isinstance(value, Tensor)]

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the same parameters with another tensor in the place of each."""

        def mapped(value: Any) -> Any:
            if isinstance(value, _Parameters):
                return value.map(function)
            return function(value) if isinstance(value, Tensor) else value

        return type(self)(**{name: mapped(value) for name, value in vars(self).items()})


@dataclass(frozen=True)
class GeometricDraw(_Parameters):
    """Where the view comes from: an integer crop box or an affine map, and whether it is mirrored."""

    box: Tensor | None
    """[B,4] int64 top, left, height, width in source pixels."""
    affine: Tensor | None
    """[B,2,3] as torch's affine_grid takes it: output coordinates to input coordinates."""
    flip: Tensor
    """[B] bool."""
    semantics: Semantics = "torchvision"

    def source_box(self, height: int, width: int) -> Tensor | None:
        """Return the part of `height` x `width` images that the view shows, as `View.box`."""
        if self.affine is not None:
            return None
        if self.box is None:
            corner = self.flip.new_zeros(len(self.flip), 2, dtype=torch.float32)
            return torch.cat([corner, corner + 1], dim=1)  # [B,4] the whole image
        top, left, box_height, box_width = self.box.float().unbind(-1)
        # By plain numbers: a GPU's host would wait for a tensor of them to arrive there.
        x0, x1 = left / width, (left + box_width) / width
        y0, y1 = top / height, (top + box_height) / height
        return torch.stack([x0, y0, x1, y1], dim=-1)  # [B,4]


@dataclass(frozen=True)
class PhotometricDraw(_Parameters):
    """What happens to the colours. A parameter that does nothing stands for "not this image".

    The jitter's four operations come in a random order. At most three blends stand before the
    hue shift and at most three after it, so six blend slots around one hue shift hold every order.
    """

    blend_kind: Tensor | None
    """[B,6] int64: NONE, BRIGHTNESS, CONTRAST or SATURATION; slots 0-2 before the hue, 3-5 after."""
    blend_factor: Tensor | None
    """[B,6] float32, 1 where the slot is empty. Official brightness: what is added."""
    hue: Tensor | None
    """[B] float32 turns, 0 for no shift."""
    gain: Tensor | None
    """[B] float32, and `offset` [B]: intensity."""
    offset: Tensor | None
    grey: Tensor | None
    """[B] bool."""
    blur_sigma: Tensor | None
    """[B] float32 pixels, 0 for no blur."""
    threshold: Tensor | None
    """[B] float32: solarize from here up, 2 for no solarization."""
    semantics: Semantics = "torchvision"


@dataclass(frozen=True)
class Draw(_Parameters):
    """All random parameters of one view of a batch."""

    geometric: GeometricDraw
    photometric: PhotometricDraw


AnyDraw = TypeVar("AnyDraw", Draw, PhotometricDraw)


def draw(
    spec: ViewSpec, count: int, height: int, width: int, channels: int = 3, generator: Generator | None = None
) -> Draw:
    """Draw the parameters of one view for each of `count` images of `height` x `width` pixels.

    Args:
        spec: the view's operations, their probabilities and ranges.
        count: number of images B.
        height: side of the source images in pixels.
        width: as `height`.
        channels: operations that need RGB are left out when this is not 3.
        generator: source of randomness, on any device; torch's CPU generator by default.
    """
    return Draw(
        draw_geometric(spec, count, height, width, generator),
        draw_photometric(spec, count, channels, generator),
    )


def draw_geometric(
    spec: ViewSpec, count: int, height: int, width: int, generator: Generator | None = None
) -> GeometricDraw:
    """Draw crop or affine, and flip, for each of `count` images."""
    crop_boxes = _official_boxes if spec.semantics == "official" else _crop_boxes
    box = None if spec.crop is None else crop_boxes(spec.crop, count, height, width, generator)
    affine = None if spec.affine is None else _affine_maps(spec.affine, count, generator)
    return GeometricDraw(box, affine, _happens(spec.flip, count, generator), spec.semantics)


def draw_geometric_pair(
    specs: tuple[ViewSpec, ViewSpec], height: int, width: int, generator: Generator | None = None
) -> tuple[GeometricDraw, GeometricDraw]:
    """Draw crop or affine, and flip, of both views of one image: in one go, in half the time, where alike."""
    first, second = specs
    if _geometry(first) == _geometry(second):
        both = draw_geometric(first, 2, height, width, generator)
        return both[:1], both[1:]
    alone = draw_geometric(first, 1, height, width, generator)
    return alone, draw_geometric(second, 1, height, width, generator)


def _geometry(spec: ViewSpec) -> ViewSpec:
    """Return what `draw_geometric` goes by."""
    return ViewSpec(crop=spec.crop, affine=spec.affine, flip=spec.flip, semantics=spec.semantics)


def draw_photometric(
    spec: ViewSpec, count: int, channels: int, generator: Generator | None = None
) -> PhotometricDraw:
    """Draw everything after the geometry for each of `count` images."""
    kind, factor, hue = _jitter(spec, count, channels, generator)
    gain, offset = _intensity(spec.intensity, count, generator)
    grey = _happens(spec.grey, count, generator) if spec.grey and channels == 3 else None
    sigma = _uniform(spec.blur_sigma, (count,), generator) if spec.blur else None
    if sigma is not None:
        sigma = torch.where(_happens(spec.blur, count, generator), sigma, 0.0)
    threshold = None
    if spec.solarize:
        threshold = torch.where(_happens(spec.solarize, count, generator), spec.solarize_threshold, 2.0)
    return PhotometricDraw(kind, factor, hue, gain, offset, grey, sigma, threshold, spec.semantics)


def _rand(shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device if generator else "cpu")


def _uniform(bounds: tuple[float, float], shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    low, high = bounds
    return low + (high - low) * _rand(shape, generator)


def _happens(probability: float, count: int, generator: Generator | None) -> Tensor:
    return _rand((count,), generator) < probability


def _crop_boxes(crop: Crop, count: int, height: int, width: int, generator: Generator | None) -> Tensor:
    """Return integer boxes [B,4] (top, left, height, width), drawn as torchvision draws them."""
    heights, widths = _drawn_sides(crop, (count, 10), height, width, generator)  # [B,10]
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first try that fits; 0 where none does
    fallback_height, fallback_width = _central_size(crop, height, width)
    any_fits = fits.any(dim=1)
    box_width = torch.where(any_fits, widths.gather(1, first).squeeze(1), fallback_width)
    box_height = torch.where(any_fits, heights.gather(1, first).squeeze(1), fallback_height)
    top, left = _drawn_places(height - box_height, width - box_width, generator)
    top = torch.where(any_fits, top, (height - fallback_height) // 2)
    left = torch.where(any_fits, left, (width - fallback_width) // 2)
    return torch.stack([top, left, box_height, box_width], dim=1)  # [B,4]


def _official_boxes(crop: Crop, count: int, height: int, width: int, generator: Generator | None) -> Tensor:
    """Return integer boxes [B,4], drawn as `_decode_and_random_crop` of the official code draws them."""
    box_height, box_width = _drawn_sides(crop, (count,), height, width, generator)
    box_height, box_width = box_height.clamp(1, height), box_width.clamp(1, width)
    top, left = _drawn_places(height - box_height, width - box_width, generator)
    return torch.stack([top, left, box_height, box_width], dim=1)  # [B,4]


def _drawn_sides(
    crop: Crop, shape: tuple[int, ...], height: int, width: int, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """Return sides of `shape`, heights first: area uniform, aspect log-uniform, some beyond the image."""
    area = height * width * _uniform(crop.scale, shape, generator)
    low, high = math.log(crop.ratio[0]), math.log(crop.ratio[1])
    ratio = _uniform((low, high), shape, generator).exp()
    return (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()


def _drawn_places(
    free_height: Tensor, free_width: Tensor, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """Return tops and lefts [B], uniform over 0..free."""
    place = _rand((len(free_height), 2), generator)
    # The product of a float32 just under 1 can round up to the count itself.
    top = torch.minimum((place[:, 0] * (free_height + 1)).long(), free_height)
    left = torch.minimum((place[:, 1] * (free_width + 1)).long(), free_width)
    return top, left


def _central_size(crop: Crop, height: int, width: int) -> tuple[int, int]:
    """Return height and width of the crop torchvision falls back to: the largest of allowed aspect."""
    if width / height < crop.ratio[0]:
        return round(width / crop.ratio[0]), width
    if width / height > crop.ratio[1]:
        return height, round(height * crop.ratio[1])
    return height, width


def _affine_maps(affine: Affine, count: int, generator: Generator | None) -> Tensor:
    """Return maps [B,2,3] from output to input coordinates, both in [-1,1]."""
    scale = _uniform(affine.scale, (count,), generator)
    angle = _uniform((-affine.rotation, affine.rotation), (count,), generator)
    shear = _uniform((-affine.shear, affine.shear), (count,), generator).tan()
    shift = _uniform((-affine.translation, affine.translation), (count, 2, 1), generator)
    cos, sin, ones = angle.cos(), angle.sin(), torch.ones_like(angle)
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(count, 2, 2)
    shearing = torch.stack([ones, shear, torch.zeros_like(shear), ones], dim=1).view(count, 2, 2)
    # A glyph drawn at `scale` is read from coordinates 1/scale as far from the centre.
    linear = (rotation @ shearing) / scale.view(count, 1, 1)
    return torch.cat([linear, shift], dim=2)  # [B,2,3]


def _jitter(
    spec: ViewSpec, count: int, channels: int, generator: Generator | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return blend kinds [B,6], blend factors [B,6] and hue shifts [B], or three times None."""
    jitter = spec.jitter
    if jitter is None:
        return None, None, None
    bounds = _factor_bounds(jitter, spec.semantics)
    factor = torch.stack([_uniform(pair, (count,), generator) for pair in bounds], dim=1)
    hue = _uniform((-jitter.hue, jitter.hue), (count,), generator)
    applied = _happens(jitter.probability, count, generator)
    position = _rand((count, 4), generator).argsort(dim=1)  # [B,4] when each operation's turn comes
    hue_position = position[:, _HUE, None]
    slot = torch.where(position < hue_position, position, position - hue_position + 2)
    slot[:, _HUE] = 6  # a seventh column takes what is not a blend, and is cut off
    kinds = torch.arange(4, device=slot.device) * applied[:, None]
    if channels != 3:
        kinds[:, SATURATION] = NONE
    blend_kind = torch.zeros(count, 7, dtype=torch.int64, device=slot.device).scatter_(1, slot, kinds)
    blend_factor = torch.ones(count, 7, device=slot.device).scatter_(1, slot, factor)[:, :6]
    blend_kind = blend_kind[:, :6]
    blend_factor = torch.where(blend_kind == NONE, 1.0, blend_factor)
    return blend_kind, blend_factor, torch.where(applied, hue, 0.0) if channels == 3 else None


def _factor_bounds(jitter: Jitter, semantics: Semantics) -> list[tuple[float, float]]:
    """Return the range of each blend's factor, in the order of the kinds; the hue's column holds 1."""
    strengths = (0.0, jitter.brightness, jitter.contrast, jitter.saturation)
    bounds = [(max(0.0, 1 - strength), 1 + strength) for strength in strengths]
    if semantics == "official":
        bounds[BRIGHTNESS] = (-jitter.brightness, jitter.brightness)
    return bounds


def _intensity(
    intensity: Intensity | None, count: int, generator: Generator | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return gains [B] and offsets [B], or twice None."""
    if intensity is None:
        return None, None
    gain = _uniform(intensity.gain, (count,), generator)
    normal = torch.randn(count, generator=generator, device=gain.device)
    return gain, normal * intensity.offset_std
