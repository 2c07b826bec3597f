"""The sections of docs/results.md about speed: ours, theirs, ratio, floor and how much of it is reached."""

from statistics import mean, stdev
from typing import Any

from tables import table

CASES = {
    "small": "32 x 32 bytes to 32 x 32 views, preset `small`",
    "imagenet": "500 x 375 JPEG files to 224 x 224 views, preset `imagenet`, decoding included",
}


def views(values: dict[str, Any]) -> str:
    """Return the table of views per second."""
    whose = ("byol", "lightly", "torchvision")
    smallest = {case: _smallest_floor(case, values) for case in CASES}
    rows = [
        [
            text,
            *(number(values[case]["views_per_second"].get(who), ",.0f") for who in whose),
            *(number(values[case]["byol_over"].get(who), ".1f") for who in whose[1:]),
            number(smallest[case], ",.0f"),
            _share(values[case]["views_per_second"]["byol"], smallest[case]),
        ]
        for case, text in CASES.items()
    ]
    heads = ["", "byol", "lightly", "torchvision v2", "byol / lightly", "byol / torchvision", "at most"]
    about = (
        "At most: one part of the work alone, that which takes longest. " + _floors_in_words(values) + "\n\n"
    )
    return "## Views per second on one core\n\n" + about + table([*heads, "reached"], rows)


def _floors(case: str, values: dict[str, Any]) -> dict[str, float]:
    """Return the floors of a case: what comes behind its name, and views/s."""
    found = {
        tuple(name.split("_", 1)): value for name, value in values["floors"].items() if name.startswith(case)
    }
    return {name: value for (_, name), value in found.items()}


def _smallest_floor(case: str, values: dict[str, Any]) -> float:
    return min(_floors(case, values).values())


def _floors_in_words(values: dict[str, Any]) -> str:
    names = {"small": "32 px", "imagenet": "224 px"}
    told = {
        case: ", ".join(f"{part.replace('_', ' ')} {n:,.0f}" for part, n in _floors(case, values).items())
        for case in names
    }
    return "; ".join(f"{names[case]}: {text}" for case, text in told.items()) + "."


def _share(value: float | None, whole: float) -> str:
    return "" if value is None else f"{value / whole:.0%}"


def views_on_device(values: dict[str, Any]) -> str:
    """Return the table of views made where training makes them."""
    rows = []
    for name, case in values["cases"].items():
        floors = {part: case[part] for part in ("at_copy_speed", "products_alone") if part in case}
        for way, speed in case["views_per_second"].items():
            rows.append(
                [
                    f"preset `{name}`",
                    way,
                    number(speed, ",.0f"),
                    *(number(floors.get(part), ",.0f") for part in ("at_copy_speed", "products_alone")),
                    _share(speed, min(floors.values())),
                ]
            )
    about = "From images that stay on the device, as `byol pretrain` makes them.\n\n"
    heads = ["", "", "views/s", "bytes at the speed of a copy", "matrix products alone", "reached"]
    where = f"on {values['gpus'][0]}" if values.get("gpus") else "on a CPU, all cores"
    return f"## Views per second where training makes them, {where}\n\n" + about + table(heads, rows)


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
        held = memory[who] / 2**20 if memory.get(who) else None
        rows.append([who, _time(seconds, ".3f"), number(compared, ".2f"), number(held, ",.0f")])
    about = (
        f"{network(name)}, batch {case['batch']}, {case['precision']}, two ready-made views; memory beyond "
        "weights and the optimizer's state. byol-pytorch concatenates the views, and is compared with byol's "
        f"concatenated step. The operations alone take {case['seconds_at_best_rate']:.3f} s at the best rate "
        f"measured: {number(case['share_of_floor'], '.0%')} of byol's time.{_more_floors(case)}\n\n"
    )
    return about + table(["", "seconds", "byol's time / theirs", "memory, MiB"], rows)


def _time(seconds: float | None, style: str) -> str:
    return "died" if seconds is None else format(seconds, style)


def _more_floors(case: dict[str, Any]) -> str:
    """Return what there is to say of bytes moved and bytes held."""
    memory, text = case.get("memory", {}), ""
    if "seconds_at_copy_speed_unfused" in case:
        text += (
            f" What its operators read and write, unfused, takes {case['seconds_at_copy_speed_unfused']:.3f} "
            "s at the speed of a copy (no floor: caches and fusion save some)."
        )
    if "bytes_to_hold" in memory:
        text += (
            f" {memory['bytes_to_hold'] / 2**20:,.0f} MiB must be held, for backward of one direction and as "
            f"gradients: {number(memory['share_of_floor'], '.0%')} of what byol holds."
        )
    return text


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
        f"{number(knn['share_of_floor'], '.0%')} of byol's time.{_evaluation_floors(values)}\n\n"
    )
    rows = []
    for protocol, name in {"knn": "kNN", "logistic": "logistic regression"}.items():
        found = values[protocol]
        for who, differ in found["predictions_that_differ"].items():
            compared = number(found["byol_takes"].get(who), ".2f")
            rows.append([name, who, _time(found["seconds"][who], ".2f"), compared, f"{differ:,}"])
    heads = ["", "", "seconds", "byol's time / theirs", "predictions that differ"]
    return "## Evaluation\n\n" + about + table(heads, rows)


def _evaluation_floors(values: dict[str, Any]) -> str:
    knn, logistic, text = values["knn"], values["logistic"], ""
    if "matrix_rate" in knn:
        text += (
            f" byol's rate is {number(knn['share_of_matrix_rate'], '.0%')} of what a product of square "
            f"matrices reaches ({knn['matrix_rate'] / 1e9:,.0f} GFLOP/s), the one product's alone "
            f"{number(knn['product_share_of_matrix_rate'], '.0%')}."
        )
    if "evaluations" in logistic:
        text += (
            f" byol's regression looks {logistic['evaluations']} times at all vectors: its products alone "
            f"take {logistic['seconds_at_matrix_rate']:.2f} s at the matrix rate in double precision, "
            "reading the "
            f"vectors {logistic['seconds_at_copy_speed']:.2f} s at the speed of a copy; the larger is "
            f"{number(logistic['share_of_floor'], '.0%')} of its time."
        )
    return text


def epoch(values: dict[str, Any]) -> str:
    """Return the table of whole epochs."""
    about = (
        "Training as users run it: `byol.pretrain` beside the loop of lightly's CIFAR-10 benchmark, the same "
        'network, batch, precision and augmentations. "lightly" is as that script is; what stands behind '
        "a comma is what its user could ask for. Waiting: the share of the time in which no batch was "
        "there. At most: the operations alone, at the best rate measured. Unfused bytes: what the operators "
        "read and write, at the speed of a copy (no floor: caches and fusion save some).\n\n"
    )
    rows = []
    for case in values["cases"].values():
        name = f"{images(case)}, {case['backbone']}, {case['size']} px, batch {case['batch']}"
        for who, rate in case["images_per_second"].items():
            ours = who == "byol"
            rows.append(
                [
                    name,
                    who,
                    _time(rate, ",.0f"),
                    number(case["waiting_for_data"][who], ".0%"),
                    "" if ours else number(case["byol_over"][who], ".2f"),
                    f"{case['at_most']:,.0f}" if ours else "",
                    number(case["share_of_floor"], ".0%") if ours else "",
                    number(case.get("at_copy_speed_unfused"), ",.0f") if ours else "",
                ]
            )
    heads = ["", "", "images/s", "waiting for data", "byol / theirs", "at most", "reached", "unfused bytes"]
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
            compared, times = whose != "byol", case["times_less_memory"]
            seconds = case["fastest_and_slowest"][whose]
            rows.append(
                [
                    names[case["term"]],
                    f"{case['side']} x {case['side']}",
                    whose,
                    number(held and held / 2**20, ",.0f"),
                    f"{times:.0f}x" if compared and times else "",
                    _time(seconds and seconds[0], ".3f"),
                ]
            )
    heads = ["", "places", "", "memory, MiB", "of byol's", "seconds (fastest)"]
    return "## Memory of what is computed between places\n\n" + about + table(heads, rows)


def start_up(values: dict[str, Any]) -> str:
    """Return the table of start-up times."""
    seconds = values["seconds"]
    interpreter, torch = "python -c pass", "import torch"
    rows = []
    for name, taken in seconds.items():
        floor = torch if taken > seconds[torch] else interpreter
        share = "" if name in (interpreter, torch) else f"{seconds[floor] / taken:.0%} is `{floor}`"
        rows.append([name if "," in name else f"`{name}`", f"{taken:.2f}", share])
    about = f"Seconds of fresh processes, files in the system's cache; median of {values['rounds']}.\n\n"
    return "## Start-up\n\n" + about + table(["", "seconds", "of which"], rows)


def images(case: dict[str, Any]) -> str:
    """Return what an epoch goes through; all of CIFAR-10 needs no number."""
    whole = case["data"] == "CIFAR-10" and case["images"] == 50_000
    of = " images of" if case["data"] == "CIFAR-10" else ""
    return str(case["data"]) if whole else f"{case['images']:,}{of} {case['data']}"


def network(case: str) -> str:
    """Return resnet18-32 in words."""
    backbone, size = case.split("-")
    return f"{backbone.replace('resnet', 'ResNet-')} at {size} px"


def number(value: float | None, style: str) -> str:
    """Return a number in a table, nothing where there is none."""
    return "" if value is None else format(value, style)
