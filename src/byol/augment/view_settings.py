"""Views of one's own as plain values: what stands under `preset:` in YAML, such as a run's config.yaml."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, TypeVar

from byol.augment.presets import Affine, Crop, Intensity, Jitter, ViewSpec, preset_named
from byol.errors import UserError
from byol.settings import check_names, settings_from

_VIEWS = ("first", "second")
_PARTS: dict[str, Any] = {"crop": Crop, "affine": Affine, "jitter": Jitter, "intensity": Intensity}
Part = TypeVar("Part", bound=ViewSpec | Crop | Affine | Jitter | Intensity)


def view_specs_of(preset: object) -> tuple[ViewSpec, ViewSpec]:
    """Return the two view specifications of a preset.

    Args:
        preset: its name; or two `ViewSpec`s; or names and values: fields of `ViewSpec`, for both views or,
            under `first` and `second`, for one of them, and those of a crop, an affine, a jitter or an
            intensity under its name. They change the preset that `base` names; without it a view has
            no operations but those that are named.

    Raises:
        UserError: a name is unknown, or a value is not what it should be.
    """
    match preset:
        case str():
            return preset_named(preset)
        case Mapping():
            return _from_settings(preset)
        case (ViewSpec() as first, ViewSpec() as second):
            return first, second
    raise UserError(f"preset is '{preset}', it must be a name, two ViewSpecs, or names and values")


def written_out(preset: object) -> Any:
    """Return a preset as plain values: a name (or None) as it is, views of one's own in full."""
    if preset is None or isinstance(preset, str):
        return preset
    return dict(zip(_VIEWS, map(asdict, view_specs_of(preset)), strict=True))


def _from_settings(settings: Mapping[str, Any]) -> tuple[ViewSpec, ViewSpec]:
    extra = ("base", *_VIEWS)
    check_names(ViewSpec, settings, "preset", extra)
    start = preset_named(str(settings["base"])) if "base" in settings else (ViewSpec(), ViewSpec())
    both = {name: value for name, value in settings.items() if name not in extra}
    first, second = (
        _view(_view(spec, both, "preset"), settings.get(name, {}), f"preset.{name}")
        for name, spec in zip(_VIEWS, start, strict=True)
    )
    return first, second


def _view(spec: ViewSpec, values: object, where: str) -> ViewSpec:
    """Return a view with some fields changed; null leaves an operation out."""
    values = _names_and_values(values, where)
    parts: dict[str, Any] = {}
    for name in values.keys() & _PARTS.keys():
        if values[name] is None:
            parts[name] = None
        else:
            inner = f"{where}.{name}"
            start = getattr(spec, name) or _PARTS[name]()
            parts[name] = _changed(start, _names_and_values(values[name], inner), inner)
    return _changed(spec, {name: value for name, value in values.items() if name not in _PARTS}, where, parts)


def _changed(
    start: Part, values: Mapping[str, Any], where: str, parts: Mapping[str, Any] | None = None
) -> Part:
    """Return `start` with some fields changed: `values` are still to be read, `parts` are made."""
    try:
        read = settings_from(type(start), values, spelled=str)
        return replace(start, **{name: getattr(read, name) for name in values}, **(parts or {}))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _names_and_values(values: object, where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is '{values}', it must hold names and values, like 'probability: 0.5'")
    return values
