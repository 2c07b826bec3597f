"""Write docs/results.md, docs/scaling.md and the README's tables from benchmarks/results:

python benchmarks/report.py
"""

from pathlib import Path
from typing import Any

import speed_tables
from dense_tables import dense
from goals import told
from readme_speeds import readme_speeds
from recorded import is_recorded, recorded
from scaling_page import scaling_page
from tables import made_on, percent, table

ROOT = Path(__file__).parent.parent
FEATURES = ("byol", "random-init", "pixels")
BEGIN, END = "<!-- begin: python benchmarks/report.py -->", "<!-- end -->"


def main() -> None:
    """Write all of them."""
    for file, text in pages().items():
        file.write_text(text)


def pages() -> dict[Path, str]:
    """Return the text of each file that follows from what is recorded."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    found = {
        ROOT / "docs" / "results.md": results_page(),
        readme: before + BEGIN + "\n" + readme_tables() + END + rest.split(END)[1],
    }
    page = scaling_page()
    return found if page is None else {**found, ROOT / "docs" / "scaling.md": page}


def results_page() -> str:
    """Return docs/results.md."""
    kinds = {
        "demo": demo,
        **{f"{data}_{minutes}min": budget for data in ("cifar10", "cifar100") for minutes in (1, 10, 20)},
        "cifar10_cpu": cifar10,
        "few_labels": few_labels,
        "dense": dense,
        "views": speed_tables.views,
        "views-cpu": speed_tables.views_on_device,
        "views-cuda": speed_tables.views_on_device,
        "step-cpu": speed_tables.step,
        "step-cuda": speed_tables.step,
        "evaluation": speed_tables.evaluation,
        "epoch-cpu": speed_tables.epoch,
        "epoch-cuda": speed_tables.epoch,
        "start_up": speed_tables.start_up,
        "fast_paths": speed_tables.fast_paths,
        "pixel_memory-cpu": speed_tables.pixel_memory,
        "pixel_memory-cuda": speed_tables.pixel_memory,
    }
    read = {name: recorded(name) for name in kinds if is_recorded(name)}
    sections = [kinds[name](values) + made_on(values) for name, values in read.items()]
    head = (
        "# Results\n\nWritten by `python benchmarks/report.py` from `benchmarks/results/`; do not edit. "
        "In the tables of speed, times are medians over rounds in which all take turns; a ratio is the "
        "median of the rounds' own ratios, and not exactly that of two medians.\n"
    )
    return "\n".join([head, *sections])


def readme_tables() -> str:
    """Return the README's tables: what is learned, and how fast."""
    return "\n".join(text for text in (readme_table(), readme_speeds()) if text)


def demo(values: dict[str, Any]) -> str:
    """Return the demo's table: protocols and amounts of labels across, features down."""
    cells = {(r["protocol"], r["labels"], r["features"]): r for r in values["rows"]}
    columns = [("knn", "all"), *(("logistic", labels) for labels in (1, 5, 10, "all"))]
    title = "## Handwritten digits (`byol demo`)\n\n"
    about = (
        f"Top-1 on the 500 test images, in percent: mean over {len(values['seeds'])} pretraining seeds "
        f"(+- their standard deviation); few labels: 5 draws each. {max(values['seconds']):.0f} seconds "
        "at most from start to picture.\n\n"
    )
    heads = ["kNN", "1 label per class", "5 labels", "10 labels", "all labels (logistic)"]
    rows = [[name, *(percent(cells[(*column, name)]) for column in columns)] for name in FEATURES]
    return title + about + table(["features", *heads], rows)


def cifar10(values: dict[str, Any]) -> str:
    """Return CIFAR-10's table."""
    cells = {(row["protocol"], row["features"]): row for row in values["rows"]}
    title = "## CIFAR-10 on two CPU cores (recipe `cifar10-cpu`)\n\n"
    about = (
        "Top-1 on the 10,000 test images, in percent; pretraining seeds "
        f"{', '.join(map(str, values['seeds']))} (+- their standard deviation; baselines: seed 0); "
        "kNN with k 200, T 0.1. "
        f"Minutes of training: {', '.join(f'{s / 60:.1f}' for s in values['training_seconds'])}. "
        f"Smallest spread of the projections on the way: {values['smallest_spread']:.2f} of the healthy "
        "one.\n\n"
    )
    rows = [[name, *(percent(cells[p, name]) for p in ("knn", "logistic"))] for name in FEATURES]
    return title + about + table(["features", "kNN", "logistic regression"], rows)


def budget(values: dict[str, Any]) -> str:
    """Return the table of what a budget of training time gives."""
    settings, rows = values["settings"], values["rows"]
    minutes = values["budget"].removesuffix("min")
    title = f"## {values['data']} in {minutes} {'minute' if minutes == '1' else 'minutes'} of training\n\n"
    about = (
        f"Top-1 on the {rows[0]['split']} images, in percent, of {settings['backbone']} after the last of "
        f"{settings['epochs']} epochs, views of {settings['view_size'] or settings['image_size']} pixels; "
        f"pretraining seeds {', '.join(map(str, values['seeds']))} (+- their "
        f"standard deviation). At most {max(values['training_seconds']):.0f} seconds from the first to the "
        f"last optimizer step, {max(values['program_seconds']):.0f} from the start of the program to the "
        "result.\n\n"
    )
    names = {"linear": "linear probe, frozen clean features", "knn": "kNN", "online": "online probe"}
    verdicts = "".join(f"- {told(goal)}\n" for goal in values["goals"])
    scores = table([names[row["protocol"]] for row in rows], [[percent(row) for row in rows]])
    return title + about + scores + "\n" + verdicts


def few_labels(values: dict[str, Any]) -> str:
    """Return the table of frozen, fine-tuned and from scratch by amounts of labels."""
    cells = {(row["protocol"], row["features"], row["labels"]): row for row in values["rows"]}
    amounts = list(dict.fromkeys(row["labels"] for row in values["rows"]))
    title = "## CIFAR-10 with few labels, on two CPU cores\n\n"
    about = (
        "Top-1 on the 10,000 test images, in percent: mean over three draws of few labels +- their standard "
        "deviation. The backbone is that of the recipe `cifar10-cpu`, one pretraining seed. Frozen: logistic "
        "regression. Fine-tuned and from scratch share grid, choice (on a fifth of the drawn labels, with "
        f"all labels on the hold-out) and augmentation: {_grid(values['grid'], values['epochs'])}."
        f"{_minutes(values['minutes'])}\n\n"
    )
    lines = {
        "frozen, BYOL": ("logistic", "byol"),
        "fine-tuned, BYOL": ("finetune", "byol"),
        "from scratch": ("finetune", "random-init"),
        "frozen, untrained": ("logistic", "random-init"),
        "raw pixels": ("logistic", "pixels"),
    }
    rows = [[name, *(percent(cells[(*key, amount)]) for amount in amounts)] for name, key in lines.items()]
    return title + about + table(["", *(f"{amount} of the labels" for amount in amounts)], rows)


def _grid(grid: dict[str, Any], epochs: dict[str, str]) -> str:
    rates = grid["finetune_rates"].replace(",", ", ")
    lengths = ", ".join(f"{count} ({amount})" for amount, count in epochs.items())
    return (
        f"rates {rates} (per 256 images), batches of at most {grid['finetune_batch_size']}, epochs {lengths}"
    )


def _minutes(minutes: dict[str, float]) -> str:
    parts = ", ".join(f"{value:.1f} ({amount})" for amount, value in minutes.items())
    return f" Minutes it took after pretraining: {parts}, {sum(minutes.values()):.1f} together."


def readme_table() -> str:
    """Return the headline numbers, one line each."""
    rows = []
    if is_recorded("demo"):
        cells = {(r["protocol"], r["labels"], r["features"]): r for r in recorded("demo")["rows"]}
        key = ("logistic", 1)
        rows.append(
            ["digits, 1 label per class, logistic", *(percent(cells[(*key, name)]) for name in FEATURES)]
        )
        rows.append(["digits, kNN", *(percent(cells[("knn", "all", name)]) for name in FEATURES)])
    if is_recorded("cifar10_cpu"):
        values = recorded("cifar10_cpu")
        found = {(row["protocol"], row["features"]): row for row in values["rows"]}
        name = f"CIFAR-10, {max(values['training_seconds']) / 60:.0f} minutes on 2 cores, kNN"
        rows.append([name, *(percent(found["knn", name]) for name in FEATURES)])
    if is_recorded("few_labels"):
        cells = {(r["protocol"], r["features"], r["labels"]): r for r in recorded("few_labels")["rows"]}
        values = [percent(cells[("logistic", name, "1%")]) for name in FEATURES]
        rows.append(["CIFAR-10, 1 % of the labels, logistic", *values])
        values = [percent(cells[("finetune", name, "1%")]) for name in ("byol", "random-init")]
        rows.append(["CIFAR-10, 1 % of the labels, fine-tuned (untrained: from scratch)", *values, ""])
    spread = (
        "Behind +-: standard deviation over three pretraining seeds, or three draws of 1 % of the labels."
    )
    return table(["test top-1, percent", "BYOL", "untrained network", "raw pixels"], rows) + f"\n{spread}\n"


if __name__ == "__main__":
    main()
