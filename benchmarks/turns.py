"""Measure libraries in turns: each in a process and an environment of its own, one at a time.

A work is a script in `works/`. It prepares, then does its work once for every line that it reads, and
answers with one line of JSON. The others wait meanwhile, so noise of the machine meets all alike.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv-peers" / "bin" / "python"
"""The environment of the libraries that we compare with: `make bench` installs it."""


class WorkEndedError(RuntimeError):
    """A work ended before it answered: what it says of that is on standard error."""


class Work:
    """One running script; use it as a context."""

    def __init__(self, script: str, *arguments: str, peers: bool = False) -> None:
        python = str(PEERS) if peers else sys.executable
        command = [python, str(HERE / "works" / script), *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment_of(peers)
        )

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended
            self.process.stdin.close()
        self.process.wait()

    def once(self) -> dict[str, Any]:
        """Let it work once; return what it measured.

        Raises:
            WorkEndedError: it gives no answer any more: no memory was left, for instance.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise WorkEndedError(f"{' '.join(map(str, self.process.args))} ended")  # type: ignore[arg-type]
        answer: dict[str, Any] = json.loads(line)
        return answer


def in_turns(works: Mapping[str, Work], rounds: int, warm_up: int = 2) -> dict[str, list[dict[str, Any]]]:
    """Return what every work answered in each round after the first `warm_up`; ends the processes.

    A work that dies is left out from there on, and has answered nothing: [].
    """
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in works}
    alive = dict(works)
    with ExitStack() as running:
        for work in works.values():
            running.enter_context(work)
        for _ in range(warm_up + rounds):
            for name, work in list(alive.items()):
                try:
                    answers[name].append(work.once())
                except WorkEndedError as error:
                    print(f"{name} is left out: {error}")
                    del alive[name]
    return {name: found[warm_up:] if name in alive else [] for name, found in answers.items()}


def middle(values: Sequence[float], digits: int) -> float | None:
    """Return the median, rounded; None of nothing."""
    return round(statistics.median(values), digits) if values else None


def ratio(values: Sequence[float], others: Sequence[float], digits: int = 3) -> float | None:
    """Return the median of the rounds' own ratios: what slows one round slows both. None without both."""
    return middle(list(map(float.__truediv__, values, others)), digits)


def share(part: float | None, whole: float | None) -> float | None:
    """Return part / whole, rounded; None where one of them died."""
    return round(part / whole, 3) if part and whole else None


def limits(values: Sequence[float], digits: int) -> list[float] | None:
    """Return the smallest and the largest value, rounded; None of nothing."""
    return [round(min(values), digits), round(max(values), digits)] if values else None


def summary(seconds: Mapping[str, Sequence[float]], reference: str = "byol") -> dict[str, Any]:
    """Return medians, ranges, and the reference's time as a share of each other's; None of what died."""
    return {
        "seconds": {name: middle(taken, 5) for name, taken in seconds.items()},
        "fastest_and_slowest": {name: limits(taken, 5) for name, taken in seconds.items()},
        f"{reference}_takes": {
            name: ratio(seconds[reference], taken) for name, taken in seconds.items() if name != reference
        },
        "rounds": max(map(len, seconds.values())),
    }


def peers_installed() -> bool:
    """Say whether the others' environment is there; print how to get it where it is not."""
    if not PEERS.is_file():
        print("the other libraries are left out: `make bench` installs them into .venv-peers")
    return PEERS.is_file()


def peer_versions() -> dict[str, str]:
    """Return the versions of what the others' environment has of interest; nothing where it is not there."""
    if not PEERS.is_file():
        return {}
    names = ("lightly", "byol-pytorch", "torch", "torchvision", "pillow")
    asked = (
        "import importlib.metadata as metadata, json; "
        "print(json.dumps({found.name: found.version for found in metadata.distributions()}))"
    )
    words = [str(PEERS), "-c", asked]
    found = subprocess.run(words, capture_output=True, text=True, check=True, env=environment_of(peers=True))
    versions = json.loads(found.stdout)
    return {name: versions[name] for name in names if name in versions}


def environment_of(peers: bool) -> dict[str, str]:
    """Return the variables of a work: the others' environment gets no path to our code."""
    kept = {name: value for name, value in os.environ.items() if not (peers and name == "PYTHONPATH")}
    # The profiler, which counts memory, would report a missing GPU as an error, and when it starts and stops.
    return kept | {"PYTHONUNBUFFERED": "1", "KINETO_LOG_LEVEL": "6"}
