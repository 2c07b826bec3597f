"""The record: a ResNet-18 on CIFAR-10, within 1, 10 or 20 minutes of training on one GPU.

    python benchmarks/cifar10.py --budget 1min|10min|20min [--data hf:PATH] [--seeds 0,1,2]
        [--stop-after MINUTES] [--out FOLDER] [--record FILE] [flags of byol pretrain]

Pretrains with the recipe `cifar-BUDGET` and an online probe beside the learner; then, on the backbone of the
last epoch, measures a linear probe on frozen clean features (its learning rate chosen on held-out train
images), kNN (k 200, T 0.1) and the online probe. The test images are read once a seed. Flags of `byol
pretrain` beat the recipe's settings, and `--data` may name another set of small images.

How many epochs fit 95 % of the budget is measured on this machine before the first seed's clock starts, in a
short run of its own (`calibration.py`); all seeds and segments train that long. `--epochs` gives a length
instead, and nothing is measured.

Training time is from before the first batch to behind the last optimizer step, waiting and logging included,
compilation (on dummy data), calibration, measuring on the hold-out and saving left out; added up over
segments. Beside it stands the whole time from the start of the program to the result, added up likewise. The
record tells which goals are reached (`goals.py`): training time and, of CIFAR-10, the linear probe's top-1.

With --stop-after the program saves and stops that many minutes after its start, if it still trains then,
with exit status 75; the same command goes on exactly there. Where all is done it writes the record again.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from calibration import fitted_epochs, kept_calibration
from goals import BUDGETS, told, verdicts
from pretraining import check_settings, pretrained, segments, timed

import byol
from byol.config import PretrainConfig
from byol.errors import UserError
from byol.rundir import RunDirectory
from byol.settings import flag, read_flags, read_recipe
from byol.training.errors import Interrupted

STARTED = time.perf_counter()  # torch is not imported yet
PROTOCOLS = ("linear", "knn", "online")
GO_ON = 75
"""Exit status after --stop-after: EX_TEMPFAIL, try again."""


class OutOfTime(BaseException):
    """The minutes of --stop-after have passed. No Exception: what reads data takes those for its own."""


def main() -> int:
    """Do what is left to do for every seed, and write the record; return the exit status."""
    options, words = parsed(sys.argv[1:])
    deadline = None if options.stop_after is None else STARTED + 60 * options.stop_after
    try:
        settings = settings_of(options, words)
        runs = [RunDirectory(Path(options.out) / f"seed-{seed}") for seed in options.seeds]
        length = partial(fitted_epochs, runs, settings, BUDGETS[options.budget].seconds)
        began = STARTED
        for run, seed in zip(runs, options.seeds, strict=True):
            finish(run, {**settings, "seed": seed}, length, deadline, began)
            began = time.perf_counter()
        print(write(options, words, runs))
    except OutOfTime as stopped:
        print(f"cifar10: {stopped}; the same command goes on there", file=sys.stderr)
        return GO_ON
    except Interrupted as stopped:
        print(f"cifar10: {stopped}, or by the same command", file=sys.stderr)
        return stopped.exit_status
    except UserError as error:
        print(f"cifar10: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def parsed(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return our own options, and the words that are for `byol pretrain`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--budget", choices=BUDGETS, required=True)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    parser.add_argument("--stop-after", type=float, metavar="MINUTES")
    parser.add_argument("--out", help="folder of a run for each seed; default: runs/DATA-BUDGET")
    parser.add_argument("--record", type=Path, help="default: benchmarks/results/DATA_BUDGET.json")
    options, rest = parser.parse_known_args(words)
    options.out = options.out or f"runs/{data_name(options.data)}-{options.budget}"
    return options, rest


def data_name(data: str) -> str:
    """Return what a set is called: the same wherever it lies."""
    return Path(data.removeprefix("hf:").removeprefix("folder:")).name


def settings_of(options: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Return the recipe's settings, with what the command line says instead of them."""
    ours = {"data": options.data, "devices": "1", "online_probe": True}
    flags = read_flags(PretrainConfig, words)
    for name in ("data", "out", "seed", "online_probe"):
        if name in flags:
            raise UserError(f"{flag(name)} is for this program to set")
    settings = {**read_recipe(PretrainConfig, f"cifar-{options.budget}"), **ours, **flags}
    if "epochs" not in flags:
        del settings["epochs"]  # as many as fit the budget, not as the recipe reckons
    return settings


def finish(
    run: RunDirectory,
    settings: dict[str, Any],
    length: Callable[[], str],
    deadline: float | None,
    began: float,
) -> None:
    """Train to the end, starting or going on, and evaluate, unless that is done already.

    Args:
        run: of a seed.
        settings: of the run; without epochs it is as long as `length` says.
        length: returns the epochs that fit the budget.
        deadline: when to stop, in seconds of `time.perf_counter`.
        began: when the program began to work for this run, in the same.

    Raises:
        OutOfTime: before training was at its end; it is saved.
        UserError: the run was started with other settings.
    """
    check_settings(run, settings)
    known = {result["protocol"] for result in run.results()}
    missing = [protocol for protocol in PROTOCOLS if protocol not in known]
    if not missing:
        return
    with timed(run, began):
        with stopping_at(deadline, run):
            if "epochs" not in settings:
                settings = {**settings, "epochs": length()}
            pretrained(run, settings)
        for result in byol.evaluate(run.path, protocol=",".join(missing)):
            if result.metric == "top1":
                print(f"seed {result.seed}  {result.protocol:6}  {result.value:.2%}")


@contextmanager
def stopping_at(deadline: float | None, run: RunDirectory) -> Iterator[None]:
    """Send this process the signal on which training saves and stops, when it is time.

    Raises:
        OutOfTime: it was time.
    """
    if deadline is None:
        yield
        return
    left = deadline - time.perf_counter()
    if left <= 0:
        raise OutOfTime(f"no time left to train {run.path}")
    rung = threading.Event()

    def ring() -> None:
        rung.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def hear(number: int, frame: Any) -> None:
        if not rung.is_set():  # someone else's signal
            raise SystemExit(128 + number)
        raise OutOfTime(f"stopped {run.path} outside of training")

    before = signal.signal(signal.SIGTERM, hear)  # while training does not listen
    timer = threading.Timer(left, ring)
    timer.start()
    try:
        yield
    except (Interrupted, SystemExit) as stopped:  # the other one is Lightning's, while it gets ready
        if not rung.is_set():
            raise
        raise OutOfTime(f"stopped {run.path} at step {last_step(run)}") from stopped
    finally:
        timer.cancel()
        try:
            timer.join()  # its signal may be under way, and would end a program that does not listen
        finally:
            signal.signal(signal.SIGTERM, before)


def last_step(run: RunDirectory) -> int:
    """Return the optimizer step that a run is saved at; 0 where it is not saved."""
    from byol.training.checkpoint import load

    return int(load(run.last_checkpoint)["step"]) if run.last_checkpoint.is_file() else 0


def write(options: argparse.Namespace, words: Sequence[str], runs: Sequence[RunDirectory]) -> Path:
    """Write what came out of all seeds; return the file."""
    from recorded import RESULTS, record  # imports torch, which is not to be before the clock

    name = data_name(options.data)
    parts_of = [segments(run) for run in runs]
    ends = [last_with(run, "loss") for run in runs]
    left_out = ("data", "data_dir", "seed")
    values: dict[str, Any] = {
        **started_with(runs[0]),
        "budget": options.budget,
        "data": name,
        "seeds": options.seeds,
        "settings": {key: value for key, value in runs[0].config().items() if key not in left_out},
        "calibration": kept_calibration(runs),
        "training_seconds": [round(end["seconds"], 2) for end in ends],
        "program_seconds": [round(sum(part["seconds"] for part in parts), 2) for parts in parts_of],
        "segments": [[part["on"] for part in parts] for parts in parts_of],
        "steps": [end["step"] for end in ends],
        "holdout": [last_with(run, "knn") for run in runs],
        "rows": [row(protocol, runs) for protocol in PROTOCOLS],
    }
    linear, seconds = values["rows"][0], [end["seconds"] for end in ends]
    values["goals"] = verdicts(options.budget, name, values["settings"], seconds, linear)
    show(values)
    file = options.record or RESULTS / f"{name}_{options.budget}.json"
    seeds = ",".join(map(str, options.seeds))
    flags = ["--budget", options.budget, "--data", name, "--seeds", seeds, *words]
    return record(file.stem, f"python benchmarks/cifar10.py {' '.join(flags)}", values, file)


def show(values: dict[str, Any]) -> None:
    """Print what came out, and which goals are reached."""
    for each in values["rows"]:
        print(f"{each['protocol']:6}  {each['mean']:.2%} +- {each['std']:.2%}  ({each['split']})")
    print(f"training {values['training_seconds']} s, program {values['program_seconds']} s")
    for goal in values["goals"]:
        print(told(goal))


def started_with(run: RunDirectory) -> dict[str, Any]:
    """Return device, versions and date of a run's start: its record may be written elsewhere, later."""
    found: dict[str, Any] = json.loads(run.environment_file.read_text())
    return {name: value for name, value in found.items() if name not in ("command", "left_out")}


def last_with(run: RunDirectory, name: str) -> dict[str, Any]:
    """Return the last record of metrics.jsonl that has a value of this name; empty where none has."""
    return next((each for each in reversed(run.metrics()) if name in each), {})


def row(protocol: str, runs: Sequence[RunDirectory]) -> dict[str, Any]:
    """Return the top-1 of one protocol over all seeds."""
    found = [
        next(r for r in run.results() if (r["protocol"], r["metric"]) == (protocol, "top1")) for run in runs
    ]
    values = [result["value"] for result in found]
    return {
        "protocol": protocol,
        "split": found[0]["split"],
        "epoch": found[0]["epoch"],
        "mean": mean(values),
        "std": stdev(values) if len(values) > 1 else 0.0,
        "values": values,
        "settings": [result["settings"] for result in found],
    }


if __name__ == "__main__":
    sys.exit(main())
