"""The demo with several pretraining seeds: python benchmarks/demo.py [--seeds 0 1 2] [--quick]"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from recorded import record

import byol


def main() -> None:
    """Run the demo once a seed and write every mean, with its spread over seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="a few steps: measures nothing")
    options = parser.parse_args()
    settings: dict[str, Any] = {"epochs": "6st"} if options.quick else {}
    seconds, values = [], defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            started = time.perf_counter()
            run = byol.demo(out=str(Path(folder) / str(seed)), seed=seed, **settings)
            seconds.append(time.perf_counter() - started)
            for key, value in means_over_draws(run.results()).items():
                values[key].append(value)
    rows = [
        {"protocol": protocol, "labels": labels, "features": features, "mean": mean(v), "std": pstdev(v)}
        for (protocol, labels, features), v in values.items()
    ]
    for row in rows:
        name = f"{row['protocol']:9} {row['labels']!s:4} {row['features']:12}"
        print(f"{name} {row['mean']:.4f} +- {row['std']:.4f}")
    if not options.quick:
        print(
            record(
                "demo",
                "python benchmarks/demo.py",
                {"seeds": options.seeds, "seconds": seconds, "rows": rows},
            )
        )


def means_over_draws(results: list[dict[str, Any]]) -> dict[tuple[str, Any, str], float]:
    """Return top-1 by protocol, labels and features, averaged over label draws."""
    values = defaultdict(list)
    for result in results:
        if result["metric"] == "top1":
            values[result["protocol"], result["labels"], result["features"]].append(result["value"])
    return {key: mean(found) for key, found in values.items()}


if __name__ == "__main__":
    main()
