"""A benchmark's numbers: their means, and results/NAME.json with them and with what they were made on."""

import json
import subprocess
from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from byol.training.environment import environment

HERE = Path(__file__).parent
RESULTS = HERE / "results"
_SAME = ("versions", "processor", "cpu_capability", "cores", "gpus", "commit")


def parser(
    about: str | None,
    quick: str = "fewer rounds: a look, not a result",
    cases: Collection[str] = (),
) -> ArgumentParser:
    """Return a parser of what every benchmark of speed takes: --quick, and --out for its file.

    Where there are `cases`, --case takes one of them.
    """
    made = ArgumentParser(description=about, formatter_class=RawTextHelpFormatter)
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--out", type=Path, help="JSON file; default: in benchmarks/results/")
    if cases:
        made.add_argument("--case", choices=cases, help="this one only; the file keeps its other cases")
    return made


def earlier_cases(options: Namespace, name: str) -> dict[str, Any]:
    """Return the recorded cases that a run of one case leaves as they are: none without --case.

    Raises:
        SystemExit: they were not made with the same versions, on the same machine, of the same commit.
    """
    file = options.out or RESULTS / f"{name}.json"
    if options.case is None or not file.is_file():
        return {}
    found = json.loads(file.read_text())
    now = made_on()
    differ = [key for key in _SAME if key in now and found.get(key) != now[key]]
    if differ and not (options.quick and not options.out):
        raise SystemExit(
            f"{file}: the other cases were made with another {', '.join(differ)} than this run: leave out "
            "--case to make all of them, or write to another file (--out)"
        )
    return {case: values for case, values in found["cases"].items() if case != options.case}


def record_as_asked(options: Namespace, name: str, command: str, values: dict[str, Any]) -> None:
    """Record, and print where; a quick look is recorded only where a file was named."""
    if options.out or not options.quick:
        print(record(name, command, values, options.out))


def record(name: str, command: str, values: dict[str, Any], file: Path | None = None) -> Path:
    """Write values beside device, versions, commit and date; return the file."""
    file = file or RESULTS / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"command": command, **made_on(), **values}, indent=1) + "\n")
    return file


def made_on() -> dict[str, Any]:
    """Return what is recorded beside all numbers."""
    return {key: value for key, value in environment().items() if key != "command"} | {"commit": commit()}


def commit(folder: Path = HERE) -> str | None:
    """Return the commit that `folder` (a folder of a clone) is at; None outside of a clone.

    "-changed" behind it: code or benchmarks have changes that are not committed.
    """
    head = _git(folder, "rev-parse", "--short", "HEAD")
    if head is None or _git(folder, "ls-files", ".") in (None, ""):  # a copy inside of another project
        return None
    changes = _git(folder, "status", "--porcelain", "--", ":/src", ":/benchmarks", ":!/benchmarks/results")
    return f"{head}-changed" if changes else head


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    except OSError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def is_recorded(name: str) -> bool:
    """Say whether a benchmark has been run."""
    return (RESULTS / f"{name}.json").is_file()


def recorded(name: str) -> dict[str, Any]:
    """Return what `record` wrote."""
    values: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return values


def means(
    results: list[dict[str, Any]],
    compared: Callable[[dict[str, Any]], dict[str, Any]],
    chosen: Callable[[dict[str, Any]], Any],
) -> list[dict[str, Any]]:
    """Return a row for each group of results: mean, standard deviation, values, what was chosen, seconds.

    Args:
        results: records as in results.json.
        compared: the names and values of a record by which it is in a group; they begin the row.
        chosen: from a record's settings to what the row tells of them.
    """
    groups: dict[tuple[tuple[str, Any], ...], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[tuple(compared(result).items())].append(result)
    return [
        {
            **dict(group),
            "mean": mean(values := [result["value"] for result in each]),
            "std": stdev(values) if len(values) > 1 else 0.0,
            "values": values,
            "chosen": [chosen(result["settings"]) for result in each],
            "seconds": round(sum(result["seconds"] for result in each)),
        }
        for group, each in groups.items()
    ]
