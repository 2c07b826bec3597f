"""CIFAR-10 on two CPU cores: python benchmarks/cifar10_cpu.py [--data hf:PATH] [--out RUN] [--quick]"""

import argparse
import time
from typing import Any

from recorded import record

import byol
from byol.cli import main as command_line
from byol.rundir import RunDirectory


def main() -> None:
    """Pretrain with the recipe `cifar10-cpu`, evaluate with baselines, write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--out", default="runs/cifar10-cpu")
    parser.add_argument("--quick", action="store_true", help="a few steps: measures nothing")
    options = parser.parse_args()
    started = time.perf_counter()
    words = ["--recipe", "cifar10-cpu", "--data", options.data, "--out", options.out]
    words += ["--epochs", "10st"] if options.quick else []
    if status := command_line(["pretrain", *words]):
        raise SystemExit(status)
    pretraining = time.perf_counter() - started
    protocols = "knn" if options.quick else "knn,logistic"
    results = byol.evaluate(options.out, protocol=protocols, baselines=True)
    values: dict[str, Any] = {
        "seconds": {"pretraining": pretraining, "in all": time.perf_counter() - started},
        "rows": [
            {**result.to_dict(), "data": "cifar10"}  # not where it lies on this machine
            for result in results
            if result.metric == "top1"
        ],
        "spread": [row["std"] for row in RunDirectory(options.out).metrics() if "std" in row],
    }
    for row in values["rows"]:
        print(f"{row['protocol']:9} {row['features']:12} {row['value']:.4f}")
    print({name: round(seconds) for name, seconds in values["seconds"].items()})
    if not options.quick:
        print(record("cifar10_cpu", "python benchmarks/cifar10_cpu.py", values))


if __name__ == "__main__":
    main()
