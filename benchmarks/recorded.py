"""Write a benchmark's numbers to benchmarks/results/NAME.json, with what they were made on."""

import json
from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from pathlib import Path
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
