"""From words to settings: flags, YAML keys and keyword arguments go through one parser.

jsonargparse makes flags, types and help of the dataclasses in `config`. What it lacks is here:
hyphens, the closest name for a typo, one-line errors, and flags over --config over --recipe.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from importlib import resources
from os import PathLike, fspath
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from byol.errors import UserError, closest, one_line, require_known

Settings = TypeVar("Settings")
_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple[float, float]: "two numbers",
    dict[str, Any]: "names and values",
}
"""What messages call the types of settings."""


def flag(name: str) -> str:
    """Return a setting's name as it is written on the command line."""
    return "--" + name.replace("_", "-")


def settings_from(
    kind: type[Settings], values: Mapping[str, Any], spelled: Callable[[str], str] = flag
) -> Settings:
    """Return settings from names and values, such as a YAML file, flags or keyword arguments.

    Args:
        kind: a dataclass, such as those of `config`.
        values: numbers may be written as text, and texts be paths; what is not named keeps its default.
        spelled: makes of a name what messages call it.

    Raises:
        UserError: a name is unknown (the closest is given) or a value is not what it should be.
    """
    from argparse import ArgumentError

    check_names(kind, values)
    types = get_type_hints(kind)
    texts = {name: _as_text(value, types[name]) for name, value in values.items()}
    try:
        parsed = _parser(kind).parse_object(texts)
    except ArgumentError as error:
        raise _told(error, types, values, spelled) from error
    return kind(**vars(parsed))


def read_flags(kind: type[Any], words: Sequence[str], extra: Iterable[str] = ()) -> dict[str, str]:
    """Return the flags on a command line as names (with underscores) and texts.

    `--batch-size 64`, `--batch_size 64` and `--batch-size=64` mean the same; a flag for yes or no may
    stand alone; a word that belongs to no flag is the `target`, where there is one.

    Args:
        kind: a dataclass of `config`.
        words: the command line after the command.
        extra: further names that are flags here.

    Raises:
        UserError: an unknown flag (the closest is given), a flag twice or without its value.
    """
    known = {field.name: field.type for field in fields(kind)}
    flags: dict[str, str] = {}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--"):
            name, equals, value = "target", "=", word
            if name not in known or name in flags:
                hint = f". Did you mean --data {word}?" if "data" in known and "data" not in flags else ""
                raise UserError(f"'{word}' belongs to no flag{hint}")
        if name not in known and name not in extra:
            raise _unknown_flag(name, [*known, *extra])
        if name in flags:
            raise UserError(f"{flag(name)} is given twice")
        if not equals:
            value = _value(name, known.get(name) is bool, waiting)
        flags[name] = value
    return flags


def help_text(kind: type[Any], usage: str, headings: Mapping[str, str] | None = None) -> str:
    """Return the flags of a command with their meaning and default.

    Args:
        kind: a dataclass of `config`.
        usage: the command line in short.
        headings: title of a section by the name of its first setting.
    """
    text = _parser(kind).format_help().split("\n\n", 2)[2]
    text = text.split("\n", 1)[1] if text.startswith("Settings of") else text
    for first, title in (headings or {}).items():
        text = re.sub(rf"^  --{first}\b", f"\n{title}:\n  --{first}", text, flags=re.MULTILINE)
    text = text.replace("--target TARGET", "TARGET".ljust(15))  # a word without a flag
    text = re.sub(r"--[a-z_]+", lambda match: match[0].replace("_", "-"), text)
    return f"usage: {usage}\n\n" + text.lstrip("\n")


def _help_formatter() -> type[Any]:
    """Return jsonargparse's formatter without Python's types, and without a null that a text explains."""
    from jsonargparse import DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter):
        def _get_help_string(self, action: Any) -> str:
            told = action.default is None or "Default:" in action.help
            return action.help if told else f"{action.help} (default: %(default)s)"

        def _split_lines(self, text: str, width: int) -> list[str]:
            return wrap(" ".join(text.split()), width, break_on_hyphens=False)  # flags stay whole

    return Formatter


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes, shorter runs of a kind before longer ones."""
    files = resources.files("byol.recipe_files").iterdir()
    names = [file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")]
    return sorted(names, key=_by_number)


def _by_number(name: str) -> list[tuple[str, int]]:
    """Order imagenet-40 before imagenet-100: numbers by their value, words (and none) before numbers."""
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", name)]


def recipe_text(name: str) -> str:
    """Return a packaged recipe as it is written, comments and all.

    Raises:
        UserError: there is no recipe of this name.
    """
    require_known("recipe", name, recipe_names())
    return resources.files("byol.recipe_files").joinpath(f"{name}.yaml").read_text()


def layered(kind: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings over those of the files that they name: of a `config`, and below it of a `recipe`.

    Args:
        kind: the dataclass whose names the files hold.
        settings: names and values; `config` (a YAML file) and `recipe` (a packaged one) may be among them.

    Raises:
        UserError: as `read_yaml_file` and `read_recipe`.
    """
    above = dict(settings)
    recipe, config = above.pop("recipe", None), above.pop("config", None)
    below = {} if recipe is None else read_recipe(kind, recipe)
    between = {} if config is None else read_yaml_file(kind, config)
    return {**below, **between, **above}


def read_recipe(kind: type[Any], name: str) -> dict[str, Any]:
    """Return the settings of a packaged recipe; see `recipe_text` and `read_yaml`."""
    return read_yaml(kind, recipe_text(name), f"recipe {name}")


def read_yaml(kind: type[Any], text: str | bytes, source: str) -> dict[str, Any]:
    """Return the settings in a YAML text.

    Args:
        kind: the dataclass whose names are its keys.
        text: the YAML, in UTF-8 where it is bytes; "3e-4" is a number here whatever YAML says.
        source: where it stands, for messages.

    Raises:
        UserError: it is no YAML of names and values, or a key is unknown.
    """
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{source} is no YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{source} must hold names and values, like 'batch_size: 256'")
    values = {str(name).replace("-", "_"): value for name, value in values.items()}
    check_names(kind, values, source)
    return values


def read_yaml_file(kind: type[Any], path: str | Path) -> dict[str, Any]:
    """Return the settings in a YAML file; see `read_yaml`."""
    if not Path(path).is_file():
        raise UserError(f"--config {path}: no such file")
    return read_yaml(kind, Path(path).read_bytes(), str(path))


def check_names(kind: type[Any], values: Iterable[str], source: str = "", extra: Iterable[str] = ()) -> None:
    """Raise UserError for a name that is no setting and not in `extra`, with the closest that is."""
    names = [*(field.name for field in fields(kind)), *extra]
    for name in values:
        if name not in names:
            where = f" in {source}" if source else ""
            raise UserError(f"unknown setting '{name}'{where}.{closest(str(name), names)}")


def _parser(kind: type[Any]) -> Any:
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False, formatter_class=_help_formatter())
    parser.add_class_arguments(kind, None)
    return parser


def _value(name: str, is_yes_or_no: bool, waiting: list[str]) -> str:
    """Take a flag's value off the words that follow it."""
    if is_yes_or_no and (not waiting or waiting[0] not in ("true", "false")):
        return "true"
    if not waiting or waiting[0].startswith("--"):
        raise UserError(f"{flag(name)} needs a value")
    return waiting.pop(0)


def _unknown_flag(name: str, known: Iterable[str]) -> UserError:
    return UserError(f"unknown flag {flag(name)}.{closest(flag(name), map(flag, known))} See --help")


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a setting may have; a Literal's values stand for themselves."""
    if get_origin(annotation) in (Union, type(int | None)):
        return tuple(choice for part in get_args(annotation) for choice in _choices(part))
    return get_args(annotation) if get_origin(annotation) is Literal else (annotation,)


def _as_text(value: Any, annotation: Any) -> Any:
    """Turn what YAML took for something else back into text (epochs: 100, compile: off), and paths."""
    if isinstance(value, PathLike):
        return fspath(value)
    choices = _choices(annotation)
    if isinstance(value, bool):
        return {True: "on", False: "off"}[value] if "on" in choices else value
    return str(value) if isinstance(value, (int, float)) and str in choices else value


def _told(
    error: Exception, types: Mapping[str, Any], values: Mapping[str, Any], spelled: Callable[[str], str]
) -> UserError:
    """Return jsonargparse's complaint about a value in one line of ours."""
    key = re.search(r'key "(\w+)"', str(error))
    if key is None or key[1] not in values:
        return UserError(one_line(error))
    name, value = key[1], values[key[1]]
    choices = [choice for choice in _choices(types[name]) if choice is not type(None)]
    names = [choice for choice in choices if isinstance(choice, str)]
    kinds = [_KINDS.get(choice, str(choice)) for choice in choices if choice not in names]
    expected = "; or ".join([*([f"one of {', '.join(names)}"] if names else []), *kinds])
    near = closest(str(value), names)
    return UserError(f"{spelled(name)} cannot be '{value}': it takes {expected}.{near}")
