"""`byol evaluate`: from a run directory, a bundle or a weights file to records of results.json."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from byol.config import EvaluateConfig
from byol.core.backbone import find_layer
from byol.evaluation.baselines import centred_pixels, random_init
from byol.evaluation.measure import Machine, Representation, measured
from byol.evaluation.opening import Architecture, command_settings, open_with_data
from byol.evaluation.pictures import plot_labels
from byol.evaluation.report import reports_folder, write_report
from byol.evaluation.request import parsed_request
from byol.evaluation.results import Result
from byol.evaluation.target import Data, Target, chosen_device
from byol.evaluation.task import Task, divide
from byol.evaluation.tracked import tracked
from byol.rundir import append_records


def evaluate(
    target: str | Path, *, data: Data | None = None, net: nn.Module | None = None, **settings: Any
) -> list[Result]:
    """Measure how good the features of a trained backbone are, and record it.

    Args:
        target: a run directory, a bundle folder, or a file with a state dict of torchvision's, timm's or
            your own (.safetensors, .pt, .pth).
        data: as `byol pretrain --data`, or a torch Dataset, or a uint8 tensor [N,C,H,W]; None: the run's own.
        net: an untrained copy of the network, where it was the user's own.
        **settings: the flags of `byol evaluate` with underscores: protocol, labels, draws, baselines, ...

    Returns:
        One result per number, in the order measured.

    Raises:
        UserError: something is not as it should be. Nothing is recorded then, unless all was measured and
            only a report or a logger failed.
    """
    config = command_settings(EvaluateConfig, target, data, settings)
    request = parsed_request(config)
    folder = reports_folder(target, config.out) if config.report or config.plot else None
    machine = Machine(chosen_device(config.device), config.num_workers)
    opened, source = open_with_data(target, data, config.data_dir, net, Architecture.of(config))
    for name in request.freeze:
        find_layer(opened.backbone.net, name)
    if config.baselines and (reason := opened.no_random_init):
        print(f"no random-init among the baselines: {reason}", file=sys.stderr)
    task = divide(source, opened.holdout(data))
    with tracked(config, opened.run) as log:
        results = [
            result
            for representation in _representations(opened, task, config.baselines, machine)
            for result in measured(representation, task, request, machine)
        ]
        _record(results, opened, config.out)
        if folder is not None and config.report:
            _report(results, opened, task, folder)
        if folder is not None and config.plot:
            plot_labels(folder / "labels.png", results, config.metric)
        log(results, folder)
    return results


def _record(results: list[Result], target: Target, out: str | None) -> None:
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
    yield Representation(
        target.method, backbone, preprocess, seed, target.epoch, target.cache, target.described
    )
    if not baselines:
        return
    if target.run is not None and not target.no_random_init:
        initial = random_init(
            backbone,
            target.run.initial_weights,
            task.train,
            device=machine.device,
            num_workers=machine.num_workers,
        )
        yield Representation("random-init", initial, preprocess, seed, 0, target.cache)
    yield Representation("pixels", *centred_pixels(task.train), seed, None, None)
