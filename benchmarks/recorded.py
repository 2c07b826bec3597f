"""A benchmark's numbers: their means, and results/NAME.json with them and with what they were made on."""

import json
from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from byol.training.environment import environment

RESULTS = Path(__file__).parent / "results"


def parser(about: str | None, quick: str = "fewer rounds: a look, not a result") -> ArgumentParser:
    """Return a parser of what every benchmark of speed takes: --quick, and --out for its file."""
    made = ArgumentParser(description=about, formatter_class=RawTextHelpFormatter)
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--out", type=Path, help="JSON file; default: in benchmarks/results/")
    return made


def record_as_asked(options: Namespace, name: str, command: str, values: dict[str, Any]) -> None:
    """Record, and print where; a quick look is recorded only where a file was named."""
    if options.out or not options.quick:
        print(record(name, command, values, options.out))


def record(name: str, command: str, values: dict[str, Any], file: Path | None = None) -> Path:
    """Write values beside device, versions and date; return the file."""
    made_on = {key: value for key, value in environment().items() if key != "command"}
    file = file or RESULTS / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"command": command, **made_on, **values}, indent=1) + "\n")
    return file


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
