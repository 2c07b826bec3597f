"""What training gains by its fast paths must cost nothing: digits with them on and off, several seeds.

    python benchmarks/fast_paths.py [--seeds 0 1 2 3 4] [--quick]

Plain: every operation one after the other, in fp32. Fast: compiled, and in bf16. Each from a process of its
own, on one thread. (That one direction after the other gives the gradients of both at once is no matter of
noise: tests/core/test_in_turn.py.) Written: kNN and logistic regression on the 500 test images, by seed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from recorded import record

PATHS = {"plain": {}, "fast": {"compile": "on", "precision": "bf16"}}
PROTOCOLS = ("knn", "logistic")
_PROGRAM = """
import json, sys, torch, byol
torch.set_num_threads(1)
out, settings = sys.argv[1], json.loads(sys.argv[2])
run = byol.pretrain(recipe="digits", out=out, knn_every="0", logger="none", devices="1", **settings)
byol.evaluate(run.path, protocol="knn,logistic")
speed = [record["images_per_second"] for record in run.metrics() if "images_per_second" in record]
found = {r["protocol"]: r["value"] for r in run.results() if r["metric"] == "top1"}
print(json.dumps({**found, "images_per_second": sorted(speed)[len(speed) // 2]}))
"""


def trained(settings: dict[str, Any]) -> dict[str, float]:
    """Return the accuracies and the median images/s of one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _PROGRAM, str(Path(folder) / "run"), json.dumps(settings)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--quick", action="store_true", help="a few steps: measures nothing")
    options = parser.parse_args()
    shorter = {"epochs": "20st"} if options.quick else {}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in PATHS}
    for seed in options.seeds:
        for name, path in PATHS.items():
            runs[name].append(trained({**path, **shorter, "seed": seed}))
    for name, found in runs.items():
        print(name, *(told(protocol, [run[protocol] for run in found]) for protocol in PROTOCOLS), sep="   ")
    if not options.quick:
        print(record("fast_paths", "python benchmarks/fast_paths.py", {"seeds": options.seeds, "runs": runs}))


def told(protocol: str, values: list[float]) -> str:
    """Return mean and standard deviation in words."""
    return f"{protocol} {mean(values):.4f}" + (f" +- {stdev(values):.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
