"""How long programs take to start: seconds of fresh processes, byol beside the other libraries.

    python benchmarks/start_up.py [--quick] [--out benchmarks/results/start_up.json]

`byol --help`, `--version` and `import byol`, lightly's `lightly-ssl-train --help` and what each library's
BYOL needs to be imported, one after the other in every round; and the time to the first optimizer step of
`byol pretrain --recipe digits`, which nothing of theirs corresponds to. The floors: an interpreter that does
nothing, and one that imports torch. The files are in the system's cache: a first start after boot is slower.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from recorded import parser, record_as_asked
from turns import PEERS, environment_of, peer_versions, peers_installed

_LIGHTLY = "from lightly.transforms import BYOLTransform"
BYOL = [sys.executable, "-m", "byol"]
OURS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import byol": [sys.executable, "-c", "import byol"],
    "byol --version": [*BYOL, "--version"],
    "byol --help": [*BYOL, "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
    "from byol import BYOL": [sys.executable, "-c", "from byol import BYOL"],
}
THEIRS = {
    _LIGHTLY: [str(PEERS), "-c", _LIGHTLY],
    "lightly-ssl-train --help": [str(PEERS.with_name("lightly-ssl-train")), "--help"],
    "from byol_pytorch import BYOL": [str(PEERS), "-c", "from byol_pytorch import BYOL"],
}
FIRST_STEP = "byol pretrain --recipe digits, first step"
GOAL = {"byol --help": 0.5}


def ended(words: list[str]) -> float:
    """Return the seconds until a program has ended."""
    began = time.perf_counter()
    environment = environment_of(peers=words[0].startswith(str(PEERS.parent)))
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True, env=environment)
    return time.perf_counter() - began


def first_step() -> float:
    """Return the seconds until `byol pretrain` tells of its first optimizer step; stop it then."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["pretrain", "--recipe", "digits", "--log-every", "1st", "--out", f"{folder}/run"]
        began = time.perf_counter()
        with subprocess.Popen(
            [*BYOL, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            line = next((line for line in process.stderr if line.startswith("step 1/")), None)
            seconds = time.perf_counter() - began
            process.terminate()
            process.stderr.read()
    if line is None:
        raise SystemExit("byol pretrain ended before its first step")
    return seconds


def programs() -> dict[str, Callable[[], float]]:
    """Return what is timed, by name."""
    commands = OURS | (THEIRS if peers_installed() else {})
    return {name: partial(ended, words) for name, words in commands.items()} | {FIRST_STEP: first_step}


def measured(rounds: int, warm_up: int) -> dict[str, Any]:
    """Return the median seconds of each and their ranges, after rounds that warm the files up."""
    taken: dict[str, list[float]] = {name: [] for name in programs()}
    for _ in range(warm_up + rounds):
        for name, program in programs().items():
            taken[name].append(program())
    taken = {name: found[warm_up:] for name, found in taken.items()}
    return {
        "seconds": {name: round(statistics.median(found), 3) for name, found in taken.items()},
        "fastest_and_slowest": {
            name: [round(min(found), 3), round(max(found), 3)] for name, found in taken.items()
        },
        "rounds": rounds,
    }


def main() -> None:
    options = parser(__doc__, "one round: a look, not a result").parse_args()
    result: dict[str, Any] = {"peers": peer_versions(), "load_before": round(os.getloadavg()[0], 1)}
    result |= {**(measured(1, 0) if options.quick else measured(9, 1)), "goals": GOAL}
    for name, seconds in result["seconds"].items():
        goal = f"   goal {GOAL[name]}" if name in GOAL else ""
        print(f"{name:44s}{seconds:8.3f} s{goal}")
    record_as_asked(options, "start_up", "python benchmarks/start_up.py", result)


if __name__ == "__main__":
    main()
