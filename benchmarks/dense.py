"""Dense features on CamVid, on two CPU cores: untrained, BYOL, PixPro and PixPro with BYOL beside it.

python benchmarks/dense.py --data hf:PATH [--quick]

Three pretraining seeds each, on the train images alone, the same steps for all; then segmentation by frozen
features and a linear head, and by fine-tuning. Runs are kept in --runs: started again, the command goes on
where it was.
"""

import json
from pathlib import Path
from typing import Any

from pretraining import check_settings, pretrained, segments, timed
from recorded import means, parser, record_as_asked

import byol
from byol.errors import UserError
from byol.rundir import RunDirectory, write_atomically

SEEDS = (0, 1, 2)
METHODS: dict[str, dict[str, str]] = {
    "byol": {"method": "byol"},
    "pixpro": {"method": "pixpro"},
    "pixpro+instance": {"method": "pixpro", "instance_weight": "1"},
}
PRETRAINING = {
    "backbone": "resnet8_32",
    "stem": "strided",
    "image_size": "96",
    "projection_hidden_size": "512",
    "batch_size": "32",
    "epochs": "60",
    "warmup": "10%",
    "optimizer": "adamw",
    "base_lr": "8e-3",
    "weight_decay": "1e-4",
    "tau": "0.99",
    "holdout": "0",
    "knn_every": "0",
    "logger": "none",
}
EVALUATION = {"finetune_rates": "1,3", "finetune_epochs": "10"}
QUICK_PRETRAINING = {"epochs": "4st"}
QUICK_EVALUATION = {"finetune_rates": "0.3", "finetune_epochs": "1"}


def main() -> None:
    """Train and measure what is missing, and write every mean over seeds with its standard deviation."""
    arguments = parser(__doc__, quick="a few steps: measures nothing")
    arguments.add_argument("--data", required=True, help="CamVid with masks, such as hf:PATH")
    arguments.add_argument("--runs", type=Path, help="default: runs/dense, with --quick runs/dense-quick")
    options = arguments.parse_args()
    runs = options.runs or Path(f"runs/dense{'-quick' if options.quick else ''}")
    results: list[dict[str, Any]] = []
    made: list[RunDirectory] = []
    for seed in SEEDS:
        for name, method in METHODS.items():
            made.append(run := RunDirectory(runs / f"{name}-{seed}"))
            settings = {**PRETRAINING, **(QUICK_PRETRAINING if options.quick else {}), **method}
            settings |= {"seed": str(seed), "data": options.data}
            results += measured(run, name, settings, options.quick)
    rows = means(results, compared, lambda settings: settings.get("lr"))
    for row in rows:
        name = f"{row['features']:16} {row['head']:7} {row['metric']:15}"
        print(f"{name} {row['mean']:.4f} +- {row['std']:.4f}")
    values = {"seeds": SEEDS, "pretraining": PRETRAINING, "evaluation": EVALUATION, "rows": rows}
    values["pretraining_seconds"] = [run.metrics()[-1]["seconds"] for run in made]
    values["minutes"] = round(sum(part["seconds"] for run in made for part in segments(run)) / 60, 1)
    record_as_asked(options, "dense", "python benchmarks/dense.py --data hf:PATH", values)


def measured(run: RunDirectory, name: str, settings: dict[str, str], quick: bool) -> list[dict[str, Any]]:
    """Return the run's results, measured now or before; untrained features are those of BYOL's step 0."""
    evaluation = QUICK_EVALUATION if quick else EVALUATION
    file = run.path / f"dense-{'-'.join(evaluation.values())}.json"
    check_settings(run, settings)
    if file.is_file():
        return list(json.loads(file.read_text()))
    with timed(run):
        pretrained(run, settings)
        found = byol.evaluate(run.path, protocol="segmentation", baselines=name == "byol", **evaluation)
        kept = [{**result.to_dict(), "data": "camvid"} for result in found]
        for result in kept:
            result["features"] = name if result["features"] != "random-init" else "random-init"
        write_atomically(file, json.dumps(kept, indent=1) + "\n")
    return kept


def compared(result: dict[str, Any]) -> dict[str, Any]:
    """Return what results have in common that differ in the seed alone."""
    return {
        "features": result["features"],
        "head": result["settings"]["head"],
        "metric": result["metric"],
    }


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"dense: error: {error}") from error
