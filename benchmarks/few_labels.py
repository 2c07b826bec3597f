"""Frozen, fine-tuned, from scratch, at 1, 10 and 100 % of the labels of CIFAR-10, on two CPU cores.

python benchmarks/few_labels.py [--data hf:PATH] [--run RUN] [--quick]

Pretrains with the recipe `cifar10-cpu` where RUN is not there yet. 1 and 10 % are drawn three times each.
What was measured is kept in RUN/few_labels, an amount of labels at a time: started again, the command goes
on behind that.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from pretraining import check_settings, pretrained, recipe_settings
from recorded import means, record

import byol
from byol.errors import UserError
from byol.rundir import RunDirectory, write_atomically

RECIPE = "cifar10-cpu"
# Rates per 256 images, the same for every network: the smallest suits what is pretrained, whose weights are
# small after SGD with decay, the larger ones training from scratch (docs/log.md). With more labels two cores
# have time for fewer epochs; batches smaller than the paper's 1024 make more steps of them.
GRID = {"finetune_rates": "0.02,0.1,0.5", "finetune_batch_size": 128}
EPOCHS = {"1%": "40", "10%": "25", "all": "3"}
QUICK = {"finetune_rates": "0.05", "finetune_epochs": "1"}
DRAWS = 3


def main() -> None:
    """Measure what is missing, and write every mean over draws with its standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--run", help="default: runs/cifar10-cpu, with --quick runs/cifar10-cpu-quick")
    parser.add_argument("--quick", action="store_true", help="a few steps: measures nothing")
    options = parser.parse_args()
    run = RunDirectory(options.run or f"runs/{RECIPE}{'-quick' if options.quick else ''}")
    settings = recipe_settings(RECIPE, options.data, options.quick)
    try:
        check_settings(run, settings)
        pretrained(run, settings)
    except UserError as error:
        raise SystemExit(f"few_labels: error: {error}") from error
    parts = [measured(run.path, amount, options.quick) for amount in EPOCHS]
    rows = means([result for part in parts for result in part["results"]], compared, chosen)
    for row in rows:
        name = f"{row['labels']:4} {row['protocol']:9} {row['features']:12}"
        print(f"{name} {row['mean']:.4f} +- {row['std']:.4f}")
    if not options.quick:
        minutes = {amount: part["minutes"] for amount, part in zip(EPOCHS, parts, strict=True)}
        values = {"draws": DRAWS, "grid": GRID, "epochs": EPOCHS, "minutes": minutes, "rows": rows}
        print(record("few_labels", "python benchmarks/few_labels.py", values))


def measured(run: Path, amount: str, quick: bool) -> dict[str, Any]:
    """Return the results with this amount of labels and the minutes they took, measured now or before."""
    grid: dict[str, Any] = QUICK if quick else {**GRID, "finetune_epochs": EPOCHS[amount]}
    file = run / "few_labels" / f"{'-'.join([amount, *map(str, grid.values())])}.json"
    if file.is_file():
        return dict(json.loads(file.read_text()))
    began = time.perf_counter()
    settings: dict[str, Any] = {"labels": amount, "baselines": True, **grid}
    settings |= {} if amount == "all" else {"draws": DRAWS}
    found = [result.to_dict() for result in byol.evaluate(run, protocol="logistic,finetune", **settings)]
    kept = [{**result, "data": "cifar10"} for result in found if result["metric"] == "top1"]
    part = {"minutes": round((time.perf_counter() - began) / 60, 1), "results": kept}
    print(f"{amount} of the labels: {part['minutes']} minutes")
    write_atomically(file, json.dumps(part, indent=1) + "\n")
    return part


def compared(result: dict[str, Any]) -> dict[str, Any]:
    """Return what results have in common that differ in the draw alone."""
    return {name: result[name] for name in ("labels", "protocol", "features")}


def chosen(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what was chosen of the settings of a result."""
    return {name: settings.get(name) for name in ("lr", "epochs", "C")}


if __name__ == "__main__":
    main()
