"""Dense features on CamVid, on two CPU cores: untrained, BYOL, PixPro and PixPro with BYOL beside it.

python benchmarks/dense.py --data hf:PATH [--quick]

Three pretraining seeds each, on the train images alone, the same steps for all; then segmentation by frozen
features and a linear head, and by fine-tuning. Runs are kept in --runs: started again, the command goes on
where it was.
"""

import json
from pathlib import Path
from typing import Any

from recorded import means, parser, record_as_asked

import byol
from byol.cli import main as command_line
from byol.config import PretrainConfig
from byol.rundir import RunDirectory, write_atomically
from byol.settings import settings_from

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
    for seed in SEEDS:
        for name, method in METHODS.items():
            run = RunDirectory(runs / f"{name}-{seed}")
            pretrain(run, {**PRETRAINING, **method, "seed": str(seed), "data": options.data}, options.quick)
            results += measured(run, name, options.quick)
    rows = means(results, compared, lambda settings: settings.get("lr"))
    for row in rows:
        name = f"{row['features']:16} {row['head']:7} {row['metric']:15}"
        print(f"{name} {row['mean']:.4f} +- {row['std']:.4f}")
    values = {"seeds": SEEDS, "pretraining": PRETRAINING, "evaluation": EVALUATION, "rows": rows}
    values["pretraining_seconds"] = [
        seconds(RunDirectory(runs / f"{name}-{seed}")) for seed in SEEDS for name in METHODS
    ]
    record_as_asked(options, "dense", "python benchmarks/dense.py --data hf:PATH", values)


def pretrain(run: RunDirectory, settings: dict[str, str], quick: bool) -> None:
    """Pretrain, or go on, where the run has not ended."""
    settings = {**settings, **(QUICK_PRETRAINING if quick else {})}
    if run.last_checkpoint.is_file():
        check_settings(run, settings)
        words = ["--resume", str(run.path)]
    else:
        settings |= {"out": str(run.path)}
        words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    if status := command_line(["pretrain", *words]):
        raise SystemExit(status)


def check_settings(run: RunDirectory, settings: dict[str, str]) -> None:
    """Refuse to go on with a run of other settings: its numbers would stand under these."""
    made, wanted = (
        settings_from(PretrainConfig, {name: values[name] for name in settings if name != "data"})
        for values in (run.config(), settings)
    )
    if made != wanted:
        raise SystemExit(f"{run.path} has other settings than this benchmark: move it away")


def measured(run: RunDirectory, name: str, quick: bool) -> list[dict[str, Any]]:
    """Return the run's results, measured now or before; untrained features are those of BYOL's step 0."""
    settings = QUICK_EVALUATION if quick else EVALUATION
    file = run.path / f"dense-{'-'.join(settings.values())}.json"
    if not file.is_file():
        found = byol.evaluate(run.path, protocol="segmentation", baselines=name == "byol", **settings)
        kept = [{**result.to_dict(), "data": "camvid"} for result in found]
        for result in kept:
            result["features"] = name if result["features"] != "random-init" else "random-init"
        write_atomically(file, json.dumps(kept, indent=1) + "\n")
    return list(json.loads(file.read_text()))


def seconds(run: RunDirectory) -> float:
    """Return how long a run trained."""
    return float(run.metrics()[-1]["seconds"])


def compared(result: dict[str, Any]) -> dict[str, Any]:
    """Return what results have in common that differ in the seed alone."""
    return {
        "features": result["features"],
        "head": result["settings"]["head"],
        "metric": result["metric"],
    }


if __name__ == "__main__":
    main()
