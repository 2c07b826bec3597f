"""CIFAR-10 on two CPU cores, over three pretraining seeds.

python benchmarks/cifar10_cpu.py [--data hf:PATH] [--run RUN] [--quick]

Pretrains with the recipe `cifar10-cpu`: seed 0 in RUN, the others in RUN-1 and RUN-2. Started again, the
command goes on with what is there. The test images are read once, at the end.
"""

import argparse
from typing import Any

from pretraining import check_settings, pretrained, recipe_settings
from recorded import means, record

import byol
from byol.errors import UserError
from byol.rundir import RunDirectory

RECIPE = "cifar10-cpu"
SEEDS = (0, 1, 2)


def main() -> None:
    """Pretrain and evaluate each seed, the first one's with baselines; write means and deviations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--run", help="default: runs/cifar10-cpu, with --quick runs/cifar10-cpu-quick")
    parser.add_argument("--quick", action="store_true", help="a few steps: measures nothing")
    options = parser.parse_args()
    first = options.run or f"runs/{RECIPE}{'-quick' if options.quick else ''}"
    runs = {seed: RunDirectory(f"{first}-{seed}" if seed else first) for seed in SEEDS}
    settings = recipe_settings(RECIPE, options.data, options.quick)
    try:
        for seed, run in runs.items():
            check_settings(run, {**settings, "seed": seed})
        for seed, run in runs.items():
            pretrained(run, {**settings, "seed": seed})
    except UserError as error:
        raise SystemExit(f"cifar10_cpu: error: {error}") from error
    protocols = "knn" if options.quick else "knn,logistic"
    results = [result for seed, run in runs.items() for result in evaluated(run, protocols, seed == 0)]
    rows = means(results, compared, chosen)
    for row in rows:
        print(f"{row['protocol']:9} {row['features']:12} {row['mean']:.4f} +- {row['std']:.4f}")
    if not options.quick:
        values = {"seeds": SEEDS, **of_training(list(runs.values())), "rows": rows}
        print(record("cifar10_cpu", "python benchmarks/cifar10_cpu.py", values))


def evaluated(run: RunDirectory, protocols: str, baselines: bool) -> list[dict[str, Any]]:
    """Return top-1 on the test images, by protocol and features."""
    found = byol.evaluate(run.path, protocol=protocols, baselines=baselines)
    return [result.to_dict() for result in found if result.metric == "top1"]


def compared(result: dict[str, Any]) -> dict[str, Any]:
    """Return what results have in common that differ in the pretraining seed alone."""
    return {name: result[name] for name in ("protocol", "features")}


def chosen(settings: dict[str, Any]) -> Any:
    """Return what was chosen on held-out images."""
    return settings.get("C")


def of_training(runs: list[RunDirectory]) -> dict[str, Any]:
    """Return each run's seconds from the first to the last step, and the smallest spread of projections."""
    logs = [[record for record in run.metrics() if "std" in record] for run in runs]
    return {
        "training_seconds": [log[-1]["seconds"] for log in logs],
        "smallest_spread": min(record["std"] for log in logs for record in log),
    }


if __name__ == "__main__":
    main()
