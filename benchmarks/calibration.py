"""How many epochs fit a budget of training time: measured before its clock starts, in a run of its own."""

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretraining import machine, pretrained

from byol.errors import UserError
from byol.rundir import RunDirectory, write_atomically
from byol.training.errors import Interrupted

STEPS = 300
"""Optimizer steps that are taken; the first fifth, in which a GPU warms up, is not timed."""
SHARE = 0.95
"""Of the budget, that is filled: the rest is for what a short run does not show."""


def fitted_epochs(runs: Sequence[RunDirectory], settings: dict[str, Any], budget: float) -> str:
    """Return the length of all runs: that of one which can be gone on with, else what is measured now.

    Args:
        runs: of the seeds, in one folder; what is measured is kept there in calibration.json.
        settings: of the runs, without their length.
        budget: seconds of training.

    Raises:
        UserError: not even one epoch fits.
        SystemExit: a stop signal arrived while it was measured; nothing is kept.
    """
    for run in runs:
        if run.last_checkpoint.is_file():
            return str(run.config()["epochs"])
    found = calibration(settings, budget)
    print(
        f"calibration: {found['images_per_second']:,.0f} images/s, {found['seconds_per_epoch']:.3g} s an "
        f"epoch: {found['epochs']} epochs fit {SHARE:.0%} of {budget:.0f} s",
        file=sys.stderr,
    )
    file = calibration_file(runs)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(found) + "\n")
    return str(found["epochs"])


def kept_calibration(runs: Sequence[RunDirectory]) -> dict[str, Any] | None:
    """Return what the runs' length was chosen by; None where it was given."""
    file = calibration_file(runs)
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text())
    return found if str(found["epochs"]) == runs[0].config()["epochs"] else None


def calibration_file(runs: Sequence[RunDirectory]) -> Path:
    return runs[0].path.parent / "calibration.json"


def calibration(settings: dict[str, Any], budget: float) -> dict[str, Any]:
    """Measure the pace of a short run of these settings, and return it with the epochs that fit a budget."""
    pace = measured_pace(settings)
    epochs = math.floor(SHARE * budget / pace["seconds_per_epoch"])
    if epochs < 1:
        raise UserError(
            f"an epoch takes {pace['seconds_per_epoch']:.0f} s here, more than {SHARE:.0%} of the budget's "
            f"{budget:.0f} s: give a length with --epochs, such as 1 or 500st"
        )
    return {**pace, "steps": STEPS, "epochs": epochs, "budget_share": SHARE, "on": machine()}


def measured_pace(settings: dict[str, Any]) -> dict[str, float]:
    """Return images/s and seconds an epoch, counted as training time is: waiting and logging included."""
    short = {
        "epochs": f"{STEPS}st",
        "warmup": "50%",
        "log_every": "20%",
        "knn_every": "0",
        "checkpoint_every": "0",
        "backbone_every": "0",
        "logger": "none",
    }
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "calibration")
        try:
            pretrained(run, {**settings, **short})
        except Interrupted as stopped:
            print("stopped while calibrating: nothing is kept of that", file=sys.stderr)
            raise SystemExit(stopped.exit_status) from stopped
        records = [record for record in run.metrics() if "seconds" in record]
    first, last = records[0], records[-1]
    seconds = last["seconds"] - first["seconds"]
    images = (last["step"] - first["step"]) * int(settings["batch_size"])
    return {
        "images_per_second": images / seconds,
        "seconds_per_epoch": seconds / (last["epoch"] - first["epoch"]),
    }
