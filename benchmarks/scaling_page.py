"""docs/scaling.md: what was measured, how well the model predicts it, and what it says of long runs."""

from typing import Any

from forecast import (
    ASSUMED,
    GOALS,
    OVERHEADS,
    bookkeeping,
    cifar_step,
    days,
    first_crowd,
    largest_micro_batch,
    needs,
    pace,
    rates_of,
    step_parts,
)
from recorded import is_recorded, recorded
from tables import made_on, table

GPUS = (1, 8, 256)
CIFAR_BATCHES = (256, 512, 1024)
MIB, GIB = 2**20, 2**30
_MICROSECONDS = ("launch", "latency_inside", "latency_between")


def scaling_page() -> str | None:
    """Return the page, from a GPU's measurements where there are some; None where nothing is recorded."""
    name = next((n for n in ("scaling-cuda", "scaling-cpu") if is_recorded(n)), None)
    if name is None:
        return None
    return page_of(recorded(name))


def page_of(values: dict[str, Any]) -> str:
    """Return the page of what was recorded."""
    head = (
        "# Cost of growth\n\n"
        "Written by `python benchmarks/report.py` from `benchmarks/results/`; do not edit. "
        "`python benchmarks/scaling.py` measures again.\n"
    )
    parts = (_steps, _memory, _runs, _folders, _forecast, _cifar, _limits, _assumptions)
    return "\n".join([head, *(part(values) for part in parts)]) + made_on(values)


def _steps(values: dict[str, Any]) -> str:
    model = values["model"]
    rates = [
        f"{model['operations'] / 1e9:,.0f} GFLOP/s" if model["operations"] else "operations cost nothing",
        f"{model['bytes'] / 1e9:,.0f} GB/s" if model["bytes"] else "bytes cost nothing",
        f"{1000 * model['fixed']:.1f} ms a step",
    ]
    measured = values["rates"]
    errors = [abs(row["error"]) for row in values["steps"] if not row["fitted"]]
    about = (
        "## Time of an optimizer step\n\n"
        f"On {_device(values)}, {values['precision']}, views ready. The model: seconds = operations / rate + "
        "bytes / bandwidth + a fixed amount. Operations and bytes are counted, operator by operator, in a "
        f"real step; the rest is fitted to {len(values['steps']) - len(errors)} measurements: "
        f"{', '.join(rates)}. (Measured by themselves: matrix products {measured['matrix'] / 1e9:,.0f} "
        f"GFLOP/s, convolutions {measured['convolution'] / 1e9:,.0f}, a large copy "
        f"{measured['bytes'] / 1e9:,.1f} GB/s.) On the {len(errors)} others it is off by "
        f"{100 * sum(errors) / len(errors):.0f} % on average and {100 * max(errors):.0f} % at most. A fitted "
        "rate need not be that of any operator: where it lies above what was measured by itself, and the "
        "other one below, cost has moved between the terms, and their sum alone is to be trusted.\n\n"
    )
    rows = [
        [
            row["backbone"],
            f"{row['size']}",
            f"{row['batch']}",
            f"{1000 * row['seconds']:,.1f}",
            f"{1000 * row['seconds'] / row['batch']:.2f}",
            f"{1000 * row['predicted']:,.1f}",
            f"{100 * row['error']:+.0f} %",
            "fitted" if row["fitted"] else "checked",
        ]
        for row in values["steps"]
    ]
    heads = ["network", "pixels", "batch", "ms a step", "ms an image", "predicted, ms", "error", ""]
    return about + table(heads, rows)


def _memory(values: dict[str, Any]) -> str:
    memory = values["memory"]
    line = memory["line"]
    rows = []
    for kind in ("fitted", "checked"):
        for row in memory[kind]:
            error = f"{100 * row['error']:+.0f} %" if "error" in row else ""
            rows.append([f"{row['batch']}", f"{row['bytes'] / MIB:,.0f}", error, kind])
    about = (
        "## Memory of a step\n\n"
        "Beyond weights and the optimizer's state, ResNet-18 at 32 px: a line, "
        f"{line['per_step'] / MIB:,.0f} MiB and {line['per_image'] / MIB:.2f} MiB an image. ResNet-50 at "
        f"224 px: {memory['resnet50-224']['per_image'] / MIB:,.0f} MiB an image. One direction is held at a "
        "time (`compare_in_turn`). What a CPU's step holds is counted to the byte and linear in the batch by "
        "its nature: no error there says nothing of GPUs, whose kernels take room to work in.\n\n"
    )
    return about + table(["batch", "MiB", "error of the line", ""], sorted(rows, key=lambda row: int(row[0])))


def _runs(values: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['images']:,}",
            f"{row['start_up']:.2f}",
            f"{1000 * row['seconds_per_step']:.1f}",
            f"{row['data_wait']:.0%}",
            f"{row['image_bytes'] / MIB:,.0f}",
            f"{row['bytes'] / MIB:,.0f}",
        ]
        for row in values["runs"]
    ]
    about = (
        "## Number of images\n\n"
        "`byol.pretrain` on made-up 32 px images in memory, a small network, batch 64. On a CPU images of "
        "more than 2 GiB are not held as one tensor: the loader's workers cut the views out of them.\n\n"
    )
    heads = [
        "images",
        "first step after, s",
        "ms a step",
        "waiting",
        "images, MiB",
        "memory beyond them, MiB",
    ]
    return about + table(heads, rows)


def _folders(values: dict[str, Any]) -> str:
    data = values["data"]
    return (
        "## Files\n\n"
        f"Opening a folder costs {1e6 * data['seconds_per_image']:.0f} microseconds and "
        f"{data['bytes_per_image']:.0f} bytes of memory a file, in every process (measured between "
        f"{data['folders'][0]['images']:,} and {data['folders'][-1]['images']:,} files). A core decodes "
        f"500x375 JPEG files ({data['file_bytes'] / 1000:.0f} kB) and cuts two 224 px crops of each at "
        f"{data['decoded_and_cut_per_core']:,.0f} images/s.\n"
    )


def _forecast(values: dict[str, Any]) -> str:
    measured = bool(values["gpus"])
    certainty = (
        f"The GPU's rates are those measured on {values['gpus'][0]}; the rest is assumed (below)."
        if measured
        else "**These are predictions for GPUs on which nothing was measured: the rates are assumed (below), "
        "and only the model's form was checked, on a CPU.** On a GPU `python benchmarks/scaling.py` replaces "
        "the rates by measured ones."
    )
    about = (
        "## What long runs would take\n\n"
        f"ResNet-50 at 224 px, batch {ASSUMED['batch']}, two views forwarded each. {certainty} Decoding and "
        "storage are taken to keep up; what that asks for stands below.\n\n"
    )
    heads = ["", *(f"{gpus} GPU{'s' if gpus > 1 else ''}" for gpus in GPUS)]
    rows = [["images/s", *(f"{pace(values, gpus):,.0f}" for gpus in GPUS)]]
    rows += [[goal.name, *(_duration(days(values, goal, gpus)) for gpus in GPUS)] for goal in GOALS]
    parts = {gpus: step_parts(values, gpus) for gpus in GPUS}
    for name in parts[1]:
        shares = (parts[gpus][name] / sum(parts[gpus].values()) for gpus in GPUS)
        rows.append([f"share of a step: {name}", *(f"{share:.0%}" for share in shares)])
    speedups = (f"{pace(values, gpus) / pace(values, 1) / gpus:.0%}" for gpus in GPUS)
    rows.append(["images/s a GPU, of those of one alone", *speedups])
    return about + table(heads, rows)


def _cifar(values: dict[str, Any]) -> str:
    steps = {batch: parts for batch in CIFAR_BATCHES if (parts := cifar_step(values, batch))}
    if not steps:
        return ""
    certainty = (
        f"with the rates measured on {values['gpus'][0]}"
        if values["gpus"]
        else f"with the rates assumed for an {ASSUMED['GPU']} (below). **Nothing of it was measured**"
    )
    about = (
        "## An epoch of CIFAR-10\n\n"
        f"ResNet-18 with a 3x3 stem, 50,000 images, views ready, one GPU, {certainty}; nothing overlaps and "
        "no operators are fused. `benchmarks/cifar10.py` measures the real pace before it trains.\n\n"
    )
    seconds = {batch: sum(parts.values()) for batch, parts in steps.items()}
    rows = [
        ["images/s", *(f"{batch / taken:,.0f}" for batch, taken in seconds.items())],
        ["seconds an epoch", *(f"{50_000 / batch * taken:.1f}" for batch, taken in seconds.items())],
    ]
    for name in next(iter(steps.values())):
        shares = (parts[name] / seconds[batch] for batch, parts in steps.items())
        rows.append([f"share of a step: {name}", *(f"{share:.0%}" for share in shares)])
    return about + table(["", *(f"batch {batch}" for batch in steps)], rows)


def _limits(values: dict[str, Any]) -> str:
    rows = []
    decoding = [needs(values, gpus)["cores_per_gpu"] for gpus in GPUS]
    kilobytes = ASSUMED["file_bytes"] / 1000
    storage = [needs(values, gpus)["storage"] for gpus in GPUS]
    rows.append(["cores a GPU for decoding", *(f"{cores:.1f}" for cores in decoding)])
    rows.append(["storage, GB/s", *(f"{speed / 1e9:.2f}" for speed in storage)])
    million, billion = (bookkeeping(values, count) for count in (1_281_167, 1e9))
    machine = ASSUMED["gpus_per_machine"]
    names = machine * billion["bytes"]
    most = 1e9 * ASSUMED["host_memory"] / names
    crowd = first_crowd(values)
    overheads = {name: step_parts(values, crowd)[name] for name in OVERHEADS}
    heaviest = max(overheads, key=lambda name: overheads[name])
    return (
        "## Where it ends\n\n"
        + table(["", *(f"{gpus} GPU{'s' if gpus > 1 else ''}" for gpus in GPUS)], rows)
        + f"\n- **Decoding.** {max(decoding):.0f} cores a GPU at most, where {ASSUMED['cores_per_gpu']} "
        f"are assumed: {_verdict(max(decoding), ASSUMED['cores_per_gpu'])}\n"
        f"- **Storage.** {max(storage) / 1e9:.1f} GB/s at {kilobytes:.0f} kB a file, where "
        f"{ASSUMED['storage'] / 1e9:.0f} are assumed: {_verdict(max(storage), ASSUMED['storage'])} A billion "
        f"such files are {1e9 * ASSUMED['file_bytes'] / 1e12:,.0f} TB.\n"
        f"- **Host memory and start-up.** ImageNet: {million['bytes'] / GIB:.2f} GiB of names and order in "
        f"each process, listed in {million['seconds']:.0f} s. A billion files: {billion['bytes'] / GIB:,.0f} "
        f"GiB in each process, {names / 1e12:.1f} TB on a machine of {machine}, and "
        f"{billion['seconds'] / 3600:.1f} hours to list; {ASSUMED['host_memory'] / 1e12:.0f} TB of memory "
        f"end at {most / 1e9:.1f} billion files.\n"
        f"- **GPU memory.** {ASSUMED['memory_per_gpu'] / 1e9:.0f} GB hold a micro-batch of about "
        f"{largest_micro_batch(values):,.0f} images; a batch above that is accumulated.\n"
        f"- **Small shares.** With {crowd} GPUs, {ASSUMED['batch'] // crowd} images of a batch of "
        f"{ASSUMED['batch']} each, a GPU makes less than half of what it makes alone; most of the rest goes "
        f"into {heaviest}.\n"
    )


def _assumptions(values: dict[str, Any]) -> str:
    rates, measured = rates_of(values), bool(values["gpus"])
    source = "measured" if measured else "40 % and 80 % of its data sheet in bf16"
    moved = rates["bytes"] / (1 if measured else 2)
    launch, inside, between = (1e6 * ASSUMED[name] for name in _MICROSECONDS)
    gradients = 4 * values["resnet50-224"]["parameters"] / 1e6
    return (
        "## Assumptions\n\n"
        f"- {ASSUMED['GPU']}: {rates['operations'] / 1e12:.0f} TFLOP/s, {moved / 1e12:.2f} TB/s ({source}); "
        f"{1e3 * rates['fixed']:.1f} ms for the launches of a micro-batch of at most 256 images "
        f"({launch:.0f} microseconds an operator). Nothing overlaps and no operators are fused: compilation "
        "does better.\n"
        f"- Gradients, {gradients:.0f} MB in float32, go round a ring, 2 (n-1)/n of them over "
        f"{ASSUMED['link_inside'] / 1e9:.0f} GB/s in a machine of {ASSUMED['gpus_per_machine']} GPUs, "
        f"{ASSUMED['link_between'] / 1e9:.0f} GB/s a GPU between machines. "
        f"{values['resnet50-224']['batch_norms']} batch norms exchange statistics six times a step, "
        f"{inside:.0f} or {between:.0f} microseconds each.\n"
        "- A billion images are seen once. A core decodes as fast as on the machine measured. A file has "
        f"{ASSUMED['file_bytes'] / 1000:.0f} kB, as in ImageNet.\n"
    )


def _verdict(needed: float, there: float) -> str:
    if needed > there:
        return f"**short by {needed / there:.1f} times.**"
    return f"enough {there / needed:.1f} times over."


def _duration(days: float) -> str:
    if days < 2:
        return f"{24 * days:.1f} hours"
    return f"{days:.1f} days" if days < 100 else f"{days / 365:.1f} years"


def _device(values: dict[str, Any]) -> str:
    return values["gpus"][0] if values["gpus"] else f"{values['cores']} cores of {values['processor']}"
