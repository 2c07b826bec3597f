"""Runs that benchmarks need: started, gone on with, or refused; and how long the program worked for each."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import byol
from byol.config import PretrainConfig
from byol.errors import UserError
from byol.rundir import RunDirectory, append_records, read_records
from byol.settings import flag, read_recipe, settings_from


def recipe_settings(name: str, data: str, quick: bool) -> dict[str, Any]:
    """Return a recipe's settings with this data; `quick`: for ten steps."""
    recipe = read_recipe(PretrainConfig, name)
    return {**recipe, "data": data, **({"epochs": "10st"} if quick else {})}


def pretrained(run: RunDirectory, settings: dict[str, Any]) -> None:
    """Train to the end in one process: from the last checkpoint, or from the start where there is none."""
    if run.config_file.is_file():
        run.remove_unless_saved()
    if run.last_checkpoint.is_file():
        byol.pretrain(resume=run.path, devices="1")
    else:
        byol.pretrain(**{**settings, "devices": "1"}, out=str(run.path))


def check_settings(run: RunDirectory, settings: dict[str, Any]) -> None:
    """Raise UserError where a run is there already, and was started with other settings."""
    if not run.config_file.is_file():
        return
    from byol.augment.view_settings import written_out
    from byol.data.source import resolved_spec

    wanted, stored = asdict(settings_from(PretrainConfig, settings)), run.config()
    wanted |= {"data": resolved_spec(wanted["data"]), "preset": written_out(wanted["preset"])}
    for name in settings.keys() - {"data_dir", "backbone_weights"}:  # which are stored as absolute paths
        if wanted[name] != stored.get(name):  # a run may be older than a setting
            raise UserError(
                f"{run.path} was started with {flag(name)} {stored.get(name)}, not {wanted[name]}: "
                "name another folder for other settings, or move it away"
            )


@contextmanager
def timed(run: RunDirectory, began: float | None = None) -> Iterator[None]:
    """Note how long the program has worked for a run since `began` (default: now), however that ends."""
    began = time.perf_counter() if began is None else began
    try:
        yield
    finally:
        if run.config_file.is_file():
            append_records(segments_file(run), [{"seconds": time.perf_counter() - began, "on": machine()}])


def machine() -> str:
    """Return the names of the GPUs, or of the processor where there are none."""
    from byol.training.environment import environment

    here = environment()
    return ", ".join(here["gpus"]) or str(here["processor"])


def segments(run: RunDirectory) -> list[dict[str, Any]]:
    """Return the seconds of each segment of the program's work for a run, and on which machine it was."""
    return read_records(segments_file(run))


def segments_file(run: RunDirectory) -> Path:
    return run.path / "segments.json"
