"""`byol evaluate`: from a run directory, a bundle or a weights file to records of results.json."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn

from byol.config import EvaluateConfig
from byol.core.backbone import Backbone, find_layer
from byol.data.decoders import decoder_count
from byol.data.splits import draw_labels
from byol.evaluation.baselines import centred_pixels, random_init
from byol.evaluation.classifier import has_classifier, load_classifier, network_name, refuse_existing
from byol.evaluation.dense_task import divide_dense
from byol.evaluation.measure import Machine, Representation, measured
from byol.evaluation.online import online_probe_file
from byol.evaluation.opening import command_settings, open_with_data
from byol.evaluation.outputs import Outputs, outputs_of
from byol.evaluation.pictures import plot_labels
from byol.evaluation.report import write_report
from byol.evaluation.request import Request, parsed_request
from byol.evaluation.results import Result
from byol.evaluation.saved import check_settings, evaluation_set, scored
from byol.evaluation.segmentation import DenseBench, dense_measured
from byol.evaluation.segmentation_report import write_segmentation_report
from byol.evaluation.target import Data, Target, chosen_device, open_data
from byol.evaluation.task import divide
from byol.evaluation.tracked import tracked
from byol.rundir import RunDirectory, append_records
from byol.types import ImageSet


def evaluate(
    target: str | Path, *, data: Data | None = None, net: nn.Module | None = None, **settings: Any
) -> list[Result]:
    """Measure how good the features of a trained backbone are, and record it.

    A network that was saved with its classifier (`save_networks`) is scored as it is.

    Args:
        target: a run directory, a bundle folder, a file with a state dict of torchvision's, timm's or
            your own (.safetensors, .pt, .pth), or the folder of a network with its classifier.
        data: as `byol pretrain --data`, or a torch Dataset, or a uint8 tensor [N,C,H,W]; None: the run's own.
        net: an untrained copy of the network, where it was the user's own.
        **settings: the flags of `byol evaluate` with underscores: protocol, labels, draws, baselines, ...

    Returns:
        One result per number, in the order measured.

    Raises:
        UserError: something is not as it should be. What can be known beforehand is told before anything
            is measured; what was measured by then stays recorded.
    """
    config = command_settings(EvaluateConfig, target, data, settings)
    work = _prepared(config, settings, data, net)
    results: list[Result] = []
    reports = work.outputs.reports
    with tracked(work.config, work.run) as log:
        for measurement in work.measurements:
            _record(measurement, work.run, config.out)
            results += measurement
            if reports is not None and config.report:
                _report(measurement, work, reports)
        if reports is not None and config.plot:
            plot_labels(reports / "labels.png", results, config.metric)
        log(results, reports)
    return results


@dataclass(frozen=True)
class _Work:
    """Everything opened and checked; what is left is to measure."""

    config: EvaluateConfig
    run: RunDirectory | None
    measurements: Iterator[list[Result]]
    write_report: Callable[[Path, Result], None]
    reported: tuple[str, str | int]
    """Features and labels of the results that there are reports of."""
    outputs: Outputs


def _prepared(
    config: EvaluateConfig, given: Collection[str], data: Data | None, net: nn.Module | None
) -> _Work:
    """Open and check everything; `given` are the names of the settings that the user wrote."""
    if has_classifier(config.target):
        check_settings(config, given)
        return _examining(config, data, net)
    request = parsed_request(config)
    if "draws" in given and request.amounts == ("all",):
        print("--draws changes nothing: no labels are drawn where all are used", file=sys.stderr)
    return (_segmenting if request.dense else _measuring)(config, request, data, net)


def _segmenting(config: EvaluateConfig, request: Request, data: Data | None, net: nn.Module | None) -> _Work:
    outputs, machine = outputs_of(config), _machine(config)
    opened, source = open_with_data(config, data, net)
    opened.backbone.prepare_feature_map()  # raises where the network gives none
    task = divide_dense(source, opened.holdout(data), request.classes, request.void, request.chooses)
    representations = [_trained(opened)]
    if config.baselines:
        representations += _untrained(opened, task.train, machine)
    return _Work(
        config,
        opened.run,
        chain.from_iterable(
            dense_measured(
                DenseBench(each, task, request, machine, config.report and each.name == opened.method)
            )
            for each in representations
        ),
        partial(write_segmentation_report, images=task.scored, classes=task.classes),
        (opened.method, "all"),
        outputs,
    )


def _measuring(config: EvaluateConfig, request: Request, data: Data | None, net: nn.Module | None) -> _Work:
    outputs, machine = outputs_of(config), _machine(config)
    opened, source = open_with_data(config, data, net)
    for name in request.freeze:
        find_layer(opened.backbone.net, name)
    probe = online_probe_file(opened, data) if "online" in request.protocols else None
    task = divide(source, opened.holdout(data))
    for amount, draw in request.selections():
        if draw is not None:
            # Raises where a class has too few.
            draw_labels(task.labels, amount, draw, request.seed, task.class_names)
    representations = [_trained(opened, probe)]
    if config.baselines:
        representations += _untrained(opened, task.train, machine)
        pixels = centred_pixels(task.train, machine.num_workers)
        representations.append(Representation("pixels", *pixels, opened.seed, None, None))
    if outputs.networks is not None:
        _refuse_existing(outputs.networks, representations, request)
    return _Work(
        config,
        opened.run,
        chain.from_iterable(measured(each, task, request, machine, outputs) for each in representations),
        partial(write_report, truth=task.truth, class_names=task.class_names),
        (opened.method, "all"),
        outputs,
    )


def _examining(config: EvaluateConfig, data: Data | None, net: nn.Module | None) -> _Work:
    outputs, machine = outputs_of(config), _machine(config)
    classifier = load_classifier(config.target, net)
    if config.precision is not None:
        classifier.backbone.precision = config.precision
    provenance = classifier.provenance
    assert provenance is not None
    described = {"network": config.target, "learned_from": provenance.data}
    target = Target(classifier.backbone, classifier.preprocess, None, {}, described)
    chosen = evaluation_set(classifier, open_data(target, data, config.data_dir))
    assert chosen.images.labels is not None
    return _Work(
        replace(config, protocol="finetune", labels=str(provenance.labels)),
        None,
        scored(classifier, target, chosen, machine),
        partial(write_report, truth=chosen.images.labels, class_names=classifier.classes),
        (target.method, provenance.labels),
        outputs,
    )


def _machine(config: EvaluateConfig) -> Machine:
    return Machine(chosen_device(config.device), decoder_count(config.num_workers))


def _refuse_existing(networks: Path, representations: Sequence[Representation], request: Request) -> None:
    for representation in representations:
        if isinstance(representation.network, Backbone):
            for amount, draw in request.selections():
                refuse_existing(networks / network_name(representation.name, amount, draw))


def _record(results: list[Result], run: RunDirectory | None, out: str | None) -> None:
    records = [result.to_dict() for result in results]
    if run is not None:
        run.append_results(records)
    if out is not None:
        append_records(Path(out), records)


def _report(results: list[Result], work: _Work, folder: Path) -> None:
    """Write the report of a measurement of the trained features with all labels (or of a saved network)."""
    for result in results:
        is_first = result.metric in ("top1", "miou") and result.predictions is not None
        if (result.features, result.labels) == work.reported and is_first:
            work.write_report(folder, result)


def _trained(target: Target, online_probe: Path | None = None) -> Representation:
    """Return the trained features, with the probe trained beside them."""
    return Representation(
        target.method,
        target.backbone,
        target.preprocess,
        target.seed,
        target.epoch,
        target.cache,
        target.described,
        online_probe,
    )


def _untrained(target: Target, train: ImageSet, machine: Machine) -> list[Representation]:
    """Return the features of step 0; none, and a line that tells why, where there are no such weights."""
    if reason := target.no_random_init:
        print(f"no random-init among the baselines: {reason}", file=sys.stderr)
        return []
    assert target.run is not None
    if str(target.config.get("backbone")).startswith("<"):  # what a run calls a network of the user's own
        print("random-init is your network as it came to pretraining: random only if it was", file=sys.stderr)
    initial = random_init(
        target.backbone,
        target.run.initial_weights,
        train,
        device=machine.device,
        num_workers=machine.num_workers,
    )
    return [Representation("random-init", initial, target.preprocess, target.seed, 0, target.cache)]
