"""The README's table of speed: ours, and every other library's best beside it, the strongest first."""

from collections.abc import Mapping
from typing import Any

from recorded import is_recorded, recorded
from speed_tables import images, network, number
from tables import table

_WHERE = {"cpu": "CPU", "cuda": "GPU"}
_NO_LIBRARY = ("the product alone",)
"""What stands among the contestants and is none."""
Values = Mapping[str, float | None]


def readme_speeds() -> str:
    """Return the table: a line for each measurement that there is."""
    rows = [*_views_lines(), *_device_lines(), *_step_lines(), *_evaluation_lines(), *_epoch_lines()]
    heads = ["speed", "byol", "others, the best first", "beside the best, byol is"]
    about = "Medians over rounds in turns; a ratio is the median of the rounds' own, not that of two medians."
    return f"{table(heads, rows)}\n{about}\n" if rows else ""


def _views_lines() -> list[list[str]]:
    if not is_recorded("views"):
        return []
    names = {"small": "views/s, 32 px, one core", "imagenet": "views/s from JPEG files, 224 px, one core"}
    values = recorded("views")
    return [
        _speed_line(name, values[case]["views_per_second"], values[case]["byol_over"], ",.0f")
        for case, name in names.items()
    ]


def _device_lines() -> list[list[str]]:
    """Return the views made on a GPU, where nothing of the others' stands beside them."""
    names = {"small": "32 px", "imagenet": "224 px"}
    lines = []
    for name, case in cases_of("views-cuda").items():
        speeds = [speed for speed in case["views_per_second"].values() if speed]
        lines.append([f"views/s, {names[name]}, GPU", number(max(speeds, default=None), ",.0f"), "", ""])
    return lines


def _step_lines() -> list[list[str]]:
    lines = []
    for device, where in _WHERE.items():
        for name, case in cases_of(f"step-{device}").items():
            what = f"seconds a step, {network(name)}, batch {case['batch']}, {where}"
            lines.append(_time_line(what, case, ".2f" if device == "cpu" else ".4f"))
            held = case.get("memory", {}).get("bytes_of_the_step", {})
            if held.get("byol") and strongest(held, least=True):
                best = strongest(held, least=True)[0]
                share = f"{held['byol'] / held[best]:.2f} of it"
                mebibytes = {who: value and value / 2**20 for who, value in held.items()}
                told = others(mebibytes, ",.0f", least=True)
                lines.append(["MiB that the step holds", f"{mebibytes['byol']:,.0f}", told, share])
    return lines


def _evaluation_lines() -> list[list[str]]:
    if not is_recorded("evaluation"):
        return []
    values = recorded("evaluation")
    vectors, queries = values["vectors_and_queries"]
    names = {
        "knn": f"seconds of kNN, {vectors:,} x {queries:,}",
        "logistic": "seconds of logistic regression",
    }
    return [_time_line(name, values[protocol], ".2f") for protocol, name in names.items()]


def _epoch_lines() -> list[list[str]]:
    lines = []
    for device, where in _WHERE.items():
        for case in cases_of(f"epoch-{device}").values():
            name = f"images/s of an epoch, {images(case)}, {case['backbone']}, {case['size']} px, {where}"
            lines.append(_speed_line(name, case["images_per_second"], case["byol_over"], ",.0f"))
    return lines


def _speed_line(name: str, speeds: Values, over: Values, style: str) -> list[str]:
    best = strongest(speeds, least=False)
    times = over.get(best[0]) if best else None
    return [name, number(speeds["byol"], style), others(speeds, style, least=False), _times(times)]


def _time_line(name: str, case: dict[str, Any], style: str) -> list[str]:
    seconds = case["seconds"]
    best = strongest(seconds, least=True)
    share = case["byol_takes"].get(best[0]) if best else None
    times = _times(share and 1 / share)
    return [name, number(seconds["byol"], style), others(seconds, style, least=True), times]


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:{'.2f' if ratio < 10 else '.1f'}}x as fast"


def strongest(values: Values, least: bool) -> list[str]:
    """Return the contestants that are not ours, the best first: of each library as it is, and its best."""
    theirs = [name for name, value in values.items() if value is not None and not _is_ours(name)]
    order = sorted(theirs, key=lambda name: (values[name] or 0) * (1 if least else -1))
    best: dict[str, str] = {}
    for name in order:
        best.setdefault(name.split(",")[0], name)
    return [name for name in order if "," not in name or best[name.split(",")[0]] == name]


def others(values: Values, style: str, least: bool) -> str:
    """Return these with their numbers."""
    return "; ".join(f"{name} {number(values[name], style)}" for name in strongest(values, least))


def _is_ours(name: str) -> bool:
    return name.split(",")[0] == "byol" or name in _NO_LIBRARY


def cases_of(name: str) -> dict[str, Any]:
    """Return a benchmark's cases; none where it has not been run."""
    return recorded(name)["cases"] if is_recorded(name) else {}
