"""The tables of docs/coming-from.md: every option of five systems, with the defaults of both sides."""

import ast
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from torch import nn

import byol
from byol.augment.presets import PRESETS
from byol.config import EmbedConfig, EvaluateConfig, PretrainConfig
from byol.evaluation import finetune
from byol.settings import flag, read_flags, settings_from
from byol.training.preparation import worker_count
from byol.training.resolution import peak_rate, resolve
from tests.seed_options import known_options, split_at_commas
from tests.test_coming_from import SEEDS, SYSTEMS, pairs, section
from tests.training.test_pixel_settings import data_of

FACTS = SEEDS.parent / "reference" / "byol.md"
# What "the same" is the same as; options without such a home have flags here.
OURS = {
    "BYOL": byol.BYOL,
    "forward": byol.BYOL.forward,
    "PixelCL": byol.PixelCL,
    "BYOLTrainer": byol.BYOLTrainer,
    "MockDataset": byol.MockDataset,
    "train_byol": byol.train_byol,
}
FOREIGN = {"--node-rank", "--nnodes", "--nproc-per-node", "--master-addr", "--master-port"}
FOREIGN |= {"--multi_gpu", "--num_processes"}


def values(cell: str, count: int) -> list[str]:
    """Return the values of as many options: `a, b`, or `a; b` where values have commas."""
    found = [cell] if count == 1 else cell.split("; ") if ";" in cell else split_at_commas(cell)
    assert len(found) == count, f"{count} options, and these defaults: {cell}"
    return found


def literal(text: str) -> str:
    """Return a value without the remark behind it."""
    found = re.match(r"\([^)]*\)|[^\s:]+", text)
    assert found, text
    return found[0].rstrip(",")


def rows(system: str) -> list[list[str]]:
    """Return the cells of a system's table: option, default, here, default, difference."""
    table = section(system).split("| option |")[1].splitlines()[2:]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table if row.startswith("|")]


def owner(cell: str) -> tuple[str, str]:
    """Return what is said of options, and whose they are: `a`, `b` of X."""
    before, _, home = cell.partition(" of ")
    return before, home


def options_on_page(system: str) -> dict[tuple[str, str], str]:
    """Return defaults by owner and name of an option: `42`, or `42 or 192` for `42 (code: 192)`."""
    found: dict[tuple[str, str], str] = {}
    for option, default, *_ in rows(system):
        before, home = owner(option)
        names = re.findall(r"`([^`]+)`", before)
        told = values(default, len(names)) if names and default else [""] * len(names)
        for name, value in zip(names, told, strict=True):
            other = re.search(r"\([^():]+: ([^()]+)\)$", value)
            shown = literal(value) if value else ""
            found[home.replace("`", ""), name] = f"{shown} or {other[1]}" if other else shown
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_option_is_on_the_page_with_its_default(system: str) -> None:
    known, page = known_options(system), options_on_page(system)
    assert {option: page.get(option, "missing") for option in known} == known


def parameters(text: str) -> dict[str, str]:
    """Return the names and defaults of a signature, or of `--name default`; without one, "required"."""
    found = {}
    for item in split_at_commas(text):
        name, _, default = item.split(" [")[0].partition("=")
        if name != "*":
            found[name.split(":")[0]] = default or "required"
    return found


SIGNATURES = {
    "000": "BYOL",
    "001": "PixelCL",
    "002": "BYOL|BYOLTrainer|forward",
    "003": "BYOL|forward|train_byol|SimCLR_Transforms",
    "004": "BYOL",
}


def facts(system: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the options that the facts about a system tell, with their owners."""
    text = re.split(r"\n## ", FACTS.read_text())[int(system) + 2]
    assert text.startswith(f"{int(system) + 2}. SEED {system}")
    homes = SIGNATURES[system]
    signatures = re.findall(rf"`({homes})\(((?:[^()]|\([^()]*\))*)\)", text)
    assert {home for home, _ in signatures} == set(homes.split("|"))
    for home, signature in signatures:
        for name, default in parameters(signature).items():
            yield ("" if system == "004" else home, name), default
    commands = text.split("**Model")[0].split("**`logistic_regression.py`**")
    owners = {"000": ("", "the regression"), "004": ("",)}.get(system, ())
    for home, command in zip(owners, commands, strict=False):
        for name, default in re.findall(r"`(--[\w-]+) ?([^`]*)`", command):
            yield (home, name), default


def readme(system: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the options that a README tells."""
    text = next(SEEDS.glob(f"{system}_*.txt")).read_text()
    if system == "000":
        for name, default in re.findall(r"^(--\w+), default=([^,]+),", text, re.MULTILINE):
            yield ("", name), default
    if system == "001":
        for name, default in re.findall(r"^\s+(\w+) = (\w+)\b(?![.(']).*$", text, re.MULTILINE):
            yield ("", name), default
    if system == "004":
        text = text.replace("--mflow", "--mlflow")  # as the program has it
        for part in re.split(r"^ ?\* (?=--)", text, flags=re.MULTILINE)[1:]:
            given = re.search(r"Defaults to \"?([^\"\s]+)", part)
            needed = re.search(r"Optional\? ?:? NO\s*$", part, re.MULTILINE)
            yield ("", part.split()[0]), given[1] if given else "required" if needed else ""


def meaning(text: str) -> Any:
    """Return the value of a literal, or the text."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def same(default: str, shown: str) -> bool:
    """Say whether a documented default is (one of) those that are shown; some are not told."""
    return not default or meaning(default.strip("'\"")) in map(meaning, shown.split(" or "))


@pytest.mark.skipif(not FACTS.is_file(), reason="what is known about the other systems is not here")
@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_known_is_what_they_document(system: str) -> None:
    known, told = known_options(system), [*readme(system), *facts(system)]
    count = {"000": 10 + 20 + 7, "001": 3 + 20, "002": 30, "003": 14, "004": 13 + 14 + 8}[system]
    assert len(told) >= count
    missing = [option for option, _ in told if option not in known]
    assert not missing
    wrong = [(option, default, known[option]) for option, default in told if not same(default, known[option])]
    assert not wrong


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def head_sizes() -> dict[str, int]:
    """Return the widths that heads have by default."""
    layers = [layer for layer in byol.BYOL(network(), 8, None).modules() if isinstance(layer, nn.Linear)]
    return {"projection_hidden_size": layers[0].out_features, "projection_size": layers[1].out_features}


def image_sides() -> list[int | None]:
    return [resolve(PretrainConfig(), data_of("x", side)).image_size for side in (32, 128, 129, None)]


def warm_ups() -> list[str | None]:
    """Of 512 images in batches of 256."""
    return [resolve(PretrainConfig(epochs=n), data_of("x", 8)).warmup for n in ("100", "8")]


def hold_outs() -> list[float | None]:
    found = [data_of("x", 8, labelled=labelled) for labelled in (True, False)]
    return [resolve(PretrainConfig(), data).holdout for data in found]


def workers(*cores: int) -> list[int]:
    found = []
    for count in cores:
        with mock.patch("os.sched_getaffinity", return_value=set(range(count)), create=True):
            found.append(worker_count(PretrainConfig()))
    return found


# Defaults that depend on something, as the page tells them.
IN_WORDS: dict[str, Callable[[], bool]] = {
    "the images' own side up to 128, else 224": lambda: image_sides() == [32, 128, 224, 224],
    "0.1 of labelled images, else none": lambda: hold_outs() == [0.1, None],
    "one less than its share of the cores, at most 16": lambda: workers(2, 6, 64) == [1, 5, 16],
    "10 epochs, at most a quarter": lambda: warm_ups() == [f"{10 * 2}st", f"{8 * 2 // 4}st"],
}


def default_of(home: Any, name: str) -> Any:
    """Return our default: of a keyword, of a field, or what becomes of None."""
    if not callable(home):
        return getattr(home, name)  # of a preset's views
    parameter = inspect.signature(home).parameters[name]
    default = "required" if parameter.default is inspect.Parameter.empty else parameter.default
    if home is PretrainConfig:
        default = getattr(resolve(PretrainConfig(), data_of("somewhere", None)), name)
        default = getattr(PretrainConfig(), name) if name in ("data", "data_dir") else default
    if default is None and name in head_sizes():
        return head_sizes()[name]
    grids = {"finetune_rates": finetune.RATES, "finetune_epochs": finetune.EPOCHS}
    return ",".join(map(str, grids[name])) if name in grids else default


def is_default(shown: str, default: Any) -> bool:
    if shown in IN_WORDS:
        return IN_WORDS[shown]()
    text = literal(shown)
    if default is None or isinstance(default, bool):
        return text in {None: ("None", "none"), True: ("True", "on"), False: ("False", "off")}[default]
    if isinstance(default, str | type):
        return text == getattr(default, "__name__", default)
    return bool(ast.literal_eval(text) == default)


def homes(system: str, text: str) -> list[Any]:
    """Return whose keywords or fields stand before these words."""
    view = PRESETS["pixpro" if system == "001" else "imagenet"][0]
    named = {"": PretrainConfig, "evaluate": EvaluateConfig, "the views": view}
    named |= {"the views' `jitter`": view.jitter, "the views' `crop`": view.crop}
    text = re.sub(r" \(\[.*", "", text)
    return (
        [named[text]]
        if text in named
        else [pkgutil.resolve_name(name) for name in re.findall("`(.*?)`", text)]
    )


def ours(system: str, option: str, here: str) -> list[tuple[list[Any], str]]:
    """Return our options that a cell names, each with whose it is: flags, keywords, and "the same"."""
    found: list[tuple[list[Any], str]] = []
    before, home = owner(option)
    for clause in here.split("; "):
        if clause == "the same":
            owners = [
                byol.PixelCL.forward if system == "001" and home == "forward" else OURS[home.strip("`")]
            ]
            names = re.findall(r"`([^`]+)`", before)
        else:
            words, whose = owner(clause)
            plain = r"[a-z]\w*(?:\(\))?|" if whose else ""
            names = re.findall(rf"`({plain}--[a-z][\w-]*)`", words)
            owners = homes(system, whose) if names else []
        found += [
            (owners, name.removeprefix("--").replace("-", "_")) for name in names if name not in FOREIGN
        ]
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_our_options_exist_and_have_these_defaults(system: str) -> None:
    wrong, count = [], 0
    for option, _, here, default, _ in rows(system):
        named = ours(system, option, here)
        methods = [(owners, name) for owners, name in named if name.endswith("()")]
        assert all(hasattr(each, name[:-2]) for owners, name in methods for each in owners), here
        named = [each for each in named if each not in methods]
        for (owners, name), shown in zip(named, values(default, len(named)) if named else [], strict=True):
            wrong += [(name, shown) for each in owners if not is_default(shown, default_of(each, name))]
            count += 1
    assert not wrong
    assert count >= {"000": 23, "001": 50, "002": 41, "003": 19, "004": 45}[system]


def test_every_flag_on_the_page_exists() -> None:
    known = {flag(f.name) for kind in (PretrainConfig, EvaluateConfig, EmbedConfig) for f in fields(kind)}
    known |= {"--resume", "--config", "--recipe"}
    for system in SYSTEMS:
        commands = " ".join(block.text for _, right in pairs(system) for block in right)
        tables = " ".join(f"{here} {difference}" for _, _, here, _, difference in rows(system))
        used = set(re.findall(r"--[a-z][\w-]*", commands + tables))
        assert used - FOREIGN <= known, used - FOREIGN - known


def test_calls_in_the_tables_run() -> None:
    names = {"byol": byol, "images": torch.rand(2, 3, 40, 40)}
    cells = " ".join(cell for system in SYSTEMS for row in rows(system) for cell in row[2:])
    calls = re.findall(r"`(byol\.\w+\([^`]+\))`", cells)
    assert calls
    for call in calls:
        assert [view.shape for view in eval(call, names)] == [(2, 3, 32, 32)] * 2


def test_rates_that_are_constant_there_are_constant_here() -> None:
    """Their Adam has no schedule: the cosine ends where it begins, at the rate that they document."""
    told = [difference for system in SYSTEMS for *_, difference in rows(system)]
    told += [block.text.replace("\\\n", "") for _, right in pairs("000") for block in right]
    settings = [re.search(r"(?:`| pretrain )(--[^`]*--final-lr [^\s`]+)", text) for text in told]
    flags = [read_flags(PretrainConfig, found[1].split()) for found in settings if found]
    flags += [yaml.safe_load(block.text) for _, right in pairs("004") for block in right if block.language]
    configs = [settings_from(PretrainConfig, each) for each in flags]
    assert sorted(config.final_lr for config in configs) == [1e-4, 3e-4, 3e-4, 3e-4]
    assert all(peak_rate(config) == pytest.approx(config.final_lr, rel=1e-12) for config in configs)
    assert all((config.warmup, config.optimizer) == ("0", "adamw") for config in configs)
