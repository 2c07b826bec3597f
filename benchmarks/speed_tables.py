"""The sections of docs/results.md about speed, and the README's table of it: ours, theirs, ratio, floor."""

from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any

from recorded import RESULTS, recorded
from tables import table

_WHERE = {"cpu": "CPU", "cuda": "GPU"}
CASES = {
    "small": "32 x 32 bytes to 32 x 32 views, preset `small`",
    "imagenet": "500 x 375 JPEG files to 224 x 224 views, preset `imagenet`, decoding included",
}


def views(values: dict[str, Any]) -> str:
    """Return the table of views per second."""
    whose = ("byol", "lightly", "torchvision")
    rows = [
        [
            text,
            *(number(values[case]["views_per_second"].get(who), ",.0f") for who in whose),
            *(number(values[case]["byol_over"].get(who), ".1f") for who in whose[1:]),
        ]
        for case, text in CASES.items()
    ]
    heads = ["", "byol", "lightly", "torchvision v2", "byol / lightly", "byol / torchvision"]
    return "## Views per second on one core\n\n" + table(heads, rows)


def step(values: dict[str, Any]) -> str:
    """Return a table of steps for each case: seconds and memory."""
    return "## One optimizer step\n\n" + "\n".join(
        _step_case(name, case) for name, case in values["cases"].items()
    )


def _step_case(name: str, case: dict[str, Any]) -> str:
    memory = case.get("memory", {}).get("bytes_of_the_step", {})
    rows = []
    for who, seconds in case["seconds"].items():
        compared = case["byol_takes"].get(who)
        if who == "byol-pytorch" and "byol_concatenated_takes" in case:
            compared = case["byol_concatenated_takes"][who]
        held = memory[who] / 2**20 if who in memory else None
        rows.append([who, f"{seconds:.3f}", number(compared, ".2f"), number(held, ",.0f")])
    about = (
        f"{network(name)}, batch {case['batch']}, {case['precision']}, two ready-made views; memory beyond "
        "weights and the optimizer's state. byol-pytorch concatenates the views, and is compared with byol's "
        f"concatenated step. The operations alone take {case['seconds_at_best_rate']:.3f} s at the best rate "
        f"measured: {case['share_of_floor']:.0%} of byol's time.\n\n"
    )
    return about + table(["", "seconds", "byol's time / theirs", "memory, MiB"], rows)


def fast_paths(values: dict[str, Any]) -> str:
    """Return the table of what digits runs come to with fast paths on and off."""
    about = (
        f"Digits, the demo's recipe, top-1 on the 500 test images in percent, mean over "
        f"{len(values['seeds'])} seeds +- their standard deviation. Fast: compiled and in bf16.\n\n"
    )
    rows = [
        [name, *(_mean_and_spread([run[protocol] for run in runs]) for protocol in ("knn", "logistic"))]
        for name, runs in values["runs"].items()
    ]
    return "## Fast paths on and off\n\n" + about + table(["", "kNN", "logistic regression"], rows)


def _mean_and_spread(shares: list[float]) -> str:
    return f"{100 * mean(shares):.1f} +- {100 * stdev(shares):.1f}"


def evaluation(values: dict[str, Any]) -> str:
    """Return the table of kNN and logistic regression."""
    vectors, queries = values["vectors_and_queries"]
    knn = values["knn"]
    about = (
        f"{vectors:,} x 512 vectors, {queries:,} queries, on the CPU. kNN's one product takes "
        f"{knn['seconds']['the product alone']:.2f} s alone, in the same rounds: "
        f"{knn['share_of_floor']:.0%} of byol's time.\n\n"
    )
    rows = []
    for protocol, name in {"knn": "kNN", "logistic": "logistic regression"}.items():
        found = values[protocol]
        for who, differ in found["predictions_that_differ"].items():
            compared = number(found["byol_takes"].get(who), ".2f")
            rows.append([name, who, f"{found['seconds'][who]:.2f}", compared, f"{differ:,}"])
    heads = ["", "", "seconds", "byol's time / theirs", "predictions that differ"]
    return "## Evaluation\n\n" + about + table(heads, rows)


def epoch(values: dict[str, Any]) -> str:
    """Return the table of whole epochs."""
    about = (
        "Training as users run it: `byol.pretrain` beside the loop of lightly's CIFAR-10 benchmark, the same "
        "network, batch, precision, augmentations and workers. Waiting: the share of the time in which no "
        "batch was there. At most: the operations alone, at the best rate measured.\n\n"
    )
    rows = []
    for case in values["cases"].values():
        name = f"{case['data']}, {case['backbone']}, {case['size']} px, batch {case['batch']}"
        for who, rate in case["images_per_second"].items():
            ours = who == "byol"
            rows.append(
                [
                    name,
                    who,
                    f"{rate:,.0f}",
                    f"{case['waiting_for_data'][who]:.0%}",
                    "" if ours else f"{case['byol_over'][who]:.2f}",
                    f"{case['at_most']:,.0f}" if ours else "",
                    f"{case['share_of_floor']:.0%}" if ours else "",
                ]
            )
    heads = ["", "", "images/s", "waiting for data", "byol / theirs", "at most", "reached"]
    return "## A whole epoch\n\n" + about + table(heads, rows)


def pixel_memory(values: dict[str, Any]) -> str:
    """Return the table of what the terms between places need."""
    names = {"consistency": "PixPro's loss", "contrast": "PixContrast's loss", "propagation": "propagation"}
    about = (
        f"Forward and backward of one direction, batch {values['batch']}, {values['width']} channels: memory "
        "beyond the maps that go in. Broadcast: `F.cosine_similarity` of both maps, a number for every pair "
        "of places and channel, as lucidrains/pixel-level-contrastive-learning and byol_multi_gpu compute "
        f"it. Load of the machine just before, of {values['cores']}: {values['load_before']}.\n\n"
    )
    rows = []
    for case in values["cases"]:
        for whose, held in case["bytes"].items():
            compared = whose != "byol"
            rows.append(
                [
                    names[case["term"]],
                    f"{case['side']} x {case['side']}",
                    whose,
                    f"{held / 2**20:,.0f}",
                    f"{case['times_less_memory']:.0f}x" if compared else "",
                    f"{case['fastest_and_slowest'][whose][0]:.3f}",
                ]
            )
    heads = ["", "places", "", "memory, MiB", "of byol's", "seconds (fastest)"]
    return "## Memory of what is computed between places\n\n" + about + table(heads, rows)


def start_up(values: dict[str, Any]) -> str:
    """Return the table of start-up times."""
    rows = [[f"`{name}`" if "," not in name else name, f"{s:.2f}"] for name, s in values["seconds"].items()]
    about = f"Seconds of fresh processes, files in the system's cache; median of {values['rounds']}.\n\n"
    return "## Start-up\n\n" + about + table(["", "seconds"], rows)


def readme_speeds() -> str:
    """Return the README's table: a line for each measurement that there is."""
    rows = [*_views_lines(), *_step_lines(), *_knn_lines(), *_epoch_lines()]
    return table(["speed", "byol", "lightly", "byol is"], rows) if rows else ""


def _views_lines() -> list[list[str]]:
    if not is_recorded("views"):
        return []
    names = {"small": "views/s, 32 px, one core", "imagenet": "views/s from JPEG files, 224 px, one core"}
    values = recorded("views")
    return [
        _line(name, values[case]["views_per_second"], values[case]["byol_over"].get("lightly"), ",.0f")
        for case, name in names.items()
    ]


def _step_lines() -> list[list[str]]:
    lines = []
    for device in _WHERE:
        for name, case in cases_of(f"step-{device}").items():
            takes = case["byol_takes"].get("lightly")
            what = f"{network(name)}, batch {case['batch']}, {_WHERE[device]}"
            lines.append(_line(f"seconds a step, {what}", case["seconds"], takes and 1 / takes, ".2f"))
            held = case.get("memory", {}).get("bytes_of_the_step", {})
            if "lightly" in held:
                mebibytes = {who: value / 2**20 for who, value in held.items()}
                share = f"{held['byol'] / held['lightly']:.2f} of it"
                lines.append([*_line("MiB that the step holds", mebibytes, None, ",.0f")[:3], share])
    return lines


def _knn_lines() -> list[list[str]]:
    if not is_recorded("evaluation"):
        return []
    knn, name = recorded("evaluation")["knn"], "seconds of kNN, 50,000 x 10,000"
    takes = knn["byol_takes"].get("lightly")
    return [_line(name, knn["seconds"], takes and 1 / takes, ".2f")]


def _epoch_lines() -> list[list[str]]:
    lines = []
    for device in _WHERE:
        for case in cases_of(f"epoch-{device}").values():
            name = f"images/s of an epoch, {case['data']}, {case['backbone']}, {case['size']} px"
            rates, ratio = case["images_per_second"], case["byol_over"].get("lightly")
            lines.append(_line(f"{name}, {_WHERE[device]}", rates, ratio, ",.0f"))
    return lines


def _line(name: str, values: Mapping[str, float], ratio: float | None, style: str) -> list[str]:
    times = "" if ratio is None else f"{ratio:.1f}x as fast"
    return [name, number(values["byol"], style), number(values.get("lightly"), style), times]


def network(case: str) -> str:
    """Return resnet18-32 in words."""
    backbone, size = case.split("-")
    return f"{backbone.replace('resnet', 'ResNet-')} at {size} px"


def number(value: float | None, style: str) -> str:
    """Return a number in a table, nothing where there is none."""
    return "" if value is None else format(value, style)


def cases_of(name: str) -> dict[str, Any]:
    """Return a benchmark's cases; none where it has not been run."""
    return recorded(name)["cases"] if is_recorded(name) else {}


def is_recorded(name: str) -> bool:
    """Say whether a benchmark has been run."""
    return (RESULTS / f"{name}.json").is_file()
