"""Write a benchmark's numbers to benchmarks/results/NAME.json, with what they were made on."""

import json
from pathlib import Path
from typing import Any

from byol.training.environment import environment

RESULTS = Path(__file__).parent / "results"


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
