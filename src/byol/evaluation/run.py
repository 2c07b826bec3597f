"""`byol evaluate`: from a run directory or a bundle to records of results.json."""

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from byol.core.backbone import find_layer
from byol.errors import UserError
from byol.evaluation.baselines import centred_pixels, random_init
from byol.evaluation.measure import Machine, Representation, measured
from byol.evaluation.pictures import draw_labels
from byol.evaluation.report import reports_folder, write_report
from byol.evaluation.request import parsed_request
from byol.evaluation.results import Result
from byol.evaluation.target import Data, Target, chosen_device, open_data, open_target
from byol.evaluation.task import Task, divide
from byol.rundir import append_records


def evaluate(
    target: str | Path,
    *,
    data: Data | None = None,
    protocol: str = "knn,logistic",
    labels: str | int = "all",
    draws: int = 5,
    baselines: bool = False,
    data_dir: str | None = None,
    device: str = "auto",
    num_workers: int = 0,
    seed: int = 0,
    metric: str = "top1",
    transfer: bool = False,
    augment: bool = False,
    finetune_rates: str | float | None = None,
    finetune_epochs: str | int | None = None,
    freeze: str | None = None,
    report: bool = False,
    plot: bool = False,
    net: nn.Module | None = None,
    out: str | Path | None = None,
) -> list[Result]:
    """Measure how good the features of a trained backbone are, and record it.

    Args:
        target: a run directory, or a bundle folder.
        data: as `byol pretrain --data`; None: the run's own.
        protocol: knn, logistic, linear, finetune; several separated by commas.
        labels: "all", a number per class, a share such as "1%"; several separated by commas.
        draws: how often few labels are drawn; one result for each.
        baselines: measure random-init (fine-tuned: training from scratch) and pixels as well; needs a
            run directory.
        data_dir: where named sets are; None: where the run had them, else ./datasets.
        device: "auto", "cpu", "cuda", ...
        num_workers: processes that decode images which do not fit in memory.
        seed: of the draws of labels and of the order of training.
        metric: what settings are chosen by, top1 or mean_per_class; both are recorded.
        transfer: logistic regression as in the paper's transfer protocol, see `transfer_logistic`.
        augment: crop and flip while the linear probe is trained, as in the paper.
        finetune_rates: base learning rates per 256 images that fine-tuning tries, separated by
            commas; None: the paper's five.
        finetune_epochs: likewise; None: 30 and 50, as in the paper.
        freeze: names of sub-modules of the network that fine-tuning leaves as they are.
        report: write for each protocol, on the trained features with all labels, how every class
            fared (`class_report`), and draw its confusion matrix: reports/PROTOCOL.json and .png.
        plot: draw accuracy by labels, of all that is measured: reports/labels.png.
        net: an untrained copy of the network, where it was the user's own.
        out: a JSON file that gets the records too; those of a run always go to its results.json.

    Returns:
        One result per number, in the order measured.

    Raises:
        UserError: something is not as it should be. Nothing is recorded then.
    """
    request = parsed_request(
        protocol,
        labels,
        draws,
        seed,
        augment,
        metric=metric,
        transfer=transfer,
        finetune_rates=finetune_rates,
        finetune_epochs=finetune_epochs,
        freeze=freeze,
    )
    if report and "all" not in request.amounts:
        raise UserError("--report shows what comes of all labels: add all to --labels")
    folder = reports_folder(target, out) if report or plot else None
    machine = Machine(chosen_device(device), num_workers)
    opened = open_target(target, net)
    for name in request.freeze:
        find_layer(opened.backbone.net, name)
    if baselines and opened.run is None:
        raise UserError("--baselines needs a run directory: a bundle has no weights of step 0")
    task = divide(open_data(opened, data, data_dir), opened.holdout(data))
    results = [
        result
        for representation in _representations(opened, task, baselines, machine)
        for result in measured(representation, task, request, machine)
    ]
    if folder is not None and report:
        _report(results, opened, task, folder)
    if folder is not None and plot:
        draw_labels(folder / "labels.png", results, metric)
    _record(results, opened, out)
    return results


def _record(results: list[Result], target: Target, out: str | Path | None) -> None:
    records = [result.to_dict() for result in results]
    if target.run is not None:
        target.run.append_results(records)
    if out is not None:
        append_records(Path(out), records)


def _report(results: list[Result], target: Target, task: Task, folder: Path) -> None:
    """Write one report a protocol: of the trained features, with all labels."""
    for result in results:
        if (result.features, result.labels, result.metric) == (target.method, "all", "top1"):
            write_report(folder, result, task.truth, task.train.class_names or ())


def _representations(
    target: Target, task: Task, baselines: bool, machine: Machine
) -> Iterator[Representation]:
    """Yield the trained features, then random-init, then pixels."""
    backbone, preprocess, seed = target.backbone, target.preprocess, target.seed
    yield Representation(target.method, backbone, preprocess, seed, target.epoch, target.cache)
    if not baselines or target.run is None:
        return
    initial = random_init(
        backbone,
        target.run.initial_weights,
        task.train,
        device=machine.device,
        num_workers=machine.num_workers,
    )
    yield Representation("random-init", initial, preprocess, seed, 0, target.cache)
    yield Representation("pixels", *centred_pixels(task.train), seed, None, None)
