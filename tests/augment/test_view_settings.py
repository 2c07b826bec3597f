"""Views of one's own as names and values: what they come to, and what is refused."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from byol.augment.presets import PRESETS, Affine, Crop, Intensity, Jitter, ViewSpec, natural_preset
from byol.augment.view_settings import view_specs_of, written_out
from byol.errors import UserError

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "training.md"
OWN = (
    ViewSpec(crop=Crop(scale=(0.2, 1.0), interpolation="bilinear"), flip=0.25, jitter=Jitter(hue=0.05)),
    ViewSpec(affine=Affine(rotation=0.5), intensity=Intensity(), blur=0.1, semantics="official"),
)


def read(text: str) -> tuple[ViewSpec, ViewSpec]:
    return view_specs_of(yaml.safe_load(text))


def test_without_a_base_there_is_only_what_is_named() -> None:
    first, second = read(
        "{crop: {}, flip: 0.5, jitter: {saturation: 2e-1}, first: {blur: 1}, second: {solarize: .2}}"
    )
    assert first == ViewSpec(crop=Crop(), flip=0.5, jitter=Jitter(), blur=1.0)
    assert second == ViewSpec(crop=Crop(), flip=0.5, jitter=Jitter(), solarize=0.2)
    assert read("{}") == (ViewSpec(), ViewSpec())


@pytest.mark.parametrize(("side", "blur"), [(224, 0.5), (32, 0.0)])
def test_simsiam_has_the_views_of_its_paper(side: int, blur: float) -> None:
    """arXiv 2011.10566, section 3; blur half of the time as in its code, never on CIFAR-10."""
    crop = Crop((0.2, 1.0), (3 / 4, 4 / 3), "bilinear")
    view = ViewSpec(crop=crop, flip=0.5, jitter=Jitter(0.8, 0.4, 0.4, 0.4, 0.1), grey=0.2, blur=blur)
    assert PRESETS[natural_preset("tensor", side, "simsiam")] == (view, view)
    assert natural_preset("digits", 8, "simsiam") == "glyph"


def test_a_base_is_changed_and_one_view_s_values_beat_those_of_both() -> None:
    first, second = read(
        "{base: small, flip: 0.25, crop: {scale: [0.5, 1]}, jitter: {hue: 0.3}, semantics: official,"
        " second: {flip: 0, jitter: null, crop: {ratio: [1, 1]}}}"
    )
    crop = Crop(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), interpolation="bilinear")
    jitter = Jitter(probability=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.3)
    assert first == ViewSpec(crop=crop, flip=0.25, jitter=jitter, grey=0.2, semantics="official")
    crop = replace(crop, ratio=(1.0, 1.0))
    assert second == ViewSpec(crop=crop, grey=0.2, solarize=0.2, semantics="official")


def test_a_crop_takes_an_affine_s_place() -> None:
    first, _ = read("{base: glyph, affine: null, crop: {scale: [0.5, 1]}}")
    assert first == ViewSpec(crop=Crop(scale=(0.5, 1.0)), intensity=Intensity())


@pytest.mark.parametrize("specs", [*PRESETS.values(), OWN])
def test_views_come_back_from_yaml_as_they_were(specs: tuple[ViewSpec, ViewSpec]) -> None:
    plain = written_out(specs)
    assert plain == {"first": asdict(specs[0]), "second": asdict(specs[1])}
    again = yaml.safe_load(yaml.safe_dump(plain, sort_keys=False))
    assert view_specs_of(again) == specs and written_out(again) == plain


def test_the_documentation_s_yaml_and_python_are_the_same_two() -> None:
    text = DOCUMENTATION.read_text()
    names: dict[str, Any] = {}
    exec(text[text.index("from byol.augment.presets") :].split("```")[0], names)
    settings = yaml.safe_load(text[text.index("preset:\n") :].split("```")[0])
    assert view_specs_of(settings["preset"]) == (names["first"], names["second"])


def test_names_stay_names() -> None:
    assert written_out("small") == "small" and written_out(None) is None
    assert view_specs_of("small") == PRESETS["small"] and view_specs_of(list(OWN)) == OWN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{flp: 0.5}", "unknown setting 'flp' in preset. Did you mean 'flip'?"),
        ("{frist: {}}", "unknown setting 'frist' in preset. Did you mean 'first'?"),
        ("{1: 2}", "unknown setting '1' in preset."),
        ("{first: {base: small}}", "preset.first: unknown setting 'base'."),
        ("{jitter: {hu: 0.1}}", "preset.jitter: unknown setting 'hu'. Did you mean 'hue'?"),
        ("{base: imagnet}", "unknown preset 'imagnet'. Did you mean 'imagenet'?"),
        ("{base: null}", "unknown preset 'None'."),
        ("{flip: often}", "preset: flip cannot be 'often': it takes a number."),
        ("{flip: 1.5}", "preset: flip is 1.5, it must lie between 0 and 1"),
        ("{flip: null}", "preset: flip is None, it must lie between 0 and 1"),
        ("{grey: -0.1}", "grey is -0.1, it must lie between 0 and 1"),
        ("{second: {solarize: .nan}}", "preset.second: solarize is nan, it must lie between 0 and 1"),
        ("{blur_sigma: 2}", "preset: blur_sigma cannot be '2': it takes two numbers."),
        ("{blur_sigma: [2, 1]}", r"blur_sigma is (2.0, 1.0), it must be two numbers between 0 and 100"),
        ("{crop: {scale: [0.5, 1.5]}}", "preset.crop: scale is (0.5, 1.5), it must be two numbers between 0"),
        ("{crop: {ratio: [0, 1]}}", "preset.crop: ratio is (0.0, 1.0)"),
        ("{crop: {interpolation: bicubc}}", "preset.crop: unknown interpolation 'bicubc'. Did you mean"),
        ("{crop: true}", "preset.crop is 'True', it must hold names and values"),
        ("{first: }", "preset.first is 'None', it must hold names and values"),
        ("{jitter: {hue: 0.6}}", "preset.jitter: hue is 0.6, it must lie between 0 and 0.5"),
        ("{jitter: {probability: 2}}", "preset.jitter: probability is 2.0"),
        ("{affine: {shear: 1.6}}", "preset.affine: shear is 1.6"),
        ("{intensity: {gain: [-1, 1]}}", "preset.intensity: gain is (-1.0, 1.0)"),
        ("{base: glyph, crop: {}}", "preset: a view has a crop or an affine, not both"),
        ("{semantics: offical}", "preset: semantics cannot be 'offical': it takes one of torchvision"),
        ("[{flip: 0.5}, {flip: 0.5}]", "it must be a name, two ViewSpecs, or names and values"),
        ("0.5", "preset is '0.5', it must be a name, two ViewSpecs, or names and values"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ViewSpec, {"flip": 1.1}),
        (ViewSpec, {"semantics": "offical"}),
        (Crop, {"interpolation": "nearest"}),
        (Affine, {"scale": (0.0, 1.0)}),
        (Affine, {"rotation": math.inf}),
        (Intensity, {"offset_std": -1.0}),
    ],
)
def test_specifications_of_one_s_own_are_checked_in_python_too(kind: Any, values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(values))):
        kind(**values)
