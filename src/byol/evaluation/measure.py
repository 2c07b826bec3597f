"""Measure one representation: extract its vectors, run each protocol, time and score it."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.data.source import resolved_spec
from byol.errors import UserError
from byol.evaluation.augmented import augmented_training
from byol.evaluation.classifier import Classifier, Provenance, network_name, save_classifier
from byol.evaluation.features import image_digest, kept
from byol.evaluation.finetune import divided, finetune
from byol.evaluation.knn import knn
from byol.evaluation.label_draws import drawn_labels
from byol.evaluation.linear import linear
from byol.evaluation.logistic import few_label_logistic, logistic, transfer_logistic
from byol.evaluation.online import online
from byol.evaluation.outputs import Outputs
from byol.evaluation.problem import METRICS, Outcome, Problem, accuracy, mean_per_class, predicted
from byol.evaluation.request import ALL_LABELS, Request
from byol.evaluation.results import Result
from byol.evaluation.supervised import Supervision
from byol.evaluation.task import Task
from byol.types import ImageSet


@dataclass(frozen=True)
class Representation:
    """A way from images to vectors that is to be judged."""

    name: str
    network: nn.Module
    preprocess: Preprocess
    seed: int | None
    epoch: float | None
    cache: Path | None
    described: dict[str, Any] = field(default_factory=dict)
    """More to know about it."""
    online_probe: Path | None = None
    """The file of the classifier that was trained beside the network."""

    @property
    def settings(self) -> dict[str, Any]:
        """What `described` says, and an unusual precision."""
        return {**self.described, **unusual_precision(self.network)}


@dataclass(frozen=True)
class Machine:
    """Where and with how many decoding processes to work."""

    device: torch.device
    num_workers: int


@dataclass(frozen=True)
class _Bench:
    """One representation of one task, ready to be measured."""

    representation: Representation
    task: Task
    request: Request
    machine: Machine
    outputs: Outputs

    @cached_property
    def problem(self) -> Problem:
        """The vectors of both splits, extracted for the first protocol that asks for them."""
        task = self.task
        train, queries = (
            _vectors(self.representation, images, task.data, split, self.machine)
            for images, split in ((task.train, "train"), (task.scored, task.split))
        )
        metric = METRICS[self.request.metric]
        return Problem(train, task.labels, task.fit, task.choice, queries, task.num_classes, metric)


def unusual_precision(network: nn.Module) -> dict[str, Any]:
    """Return a network's precision for the settings of a result; nothing where it is fp32."""
    precision = getattr(network, "precision", "fp32")
    return {} if precision == "fp32" else {"precision": precision}


def measured(
    representation: Representation, task: Task, request: Request, machine: Machine, outputs: Outputs
) -> Iterator[list[Result]]:
    """Yield the results of each measurement of one representation, a result per metric.

    A fine-tuned network is saved after that, where it is asked for: its numbers are known then.
    """
    bench = _Bench(representation, task, request, machine, outputs)
    for protocol in request.protocols:
        if protocol == "finetune" and not isinstance(representation.network, Backbone):
            continue  # pixels have no weights
        if protocol == "online" and representation.online_probe is None:
            continue  # baselines have none
        problem = None if protocol == "finetune" else bench.problem  # extracted here, off the clock
        for amount, draw in request.selections():
            if draw is None or protocol not in ALL_LABELS:
                results, network = _results(bench, problem, protocol, amount, draw)
                yield results
                if network is not None and outputs.networks is not None:
                    _save(outputs.networks, bench, network, results[0])


_SEEDED = ("linear", "finetune")
"""Protocols with an order of images, which the evaluation's seed decides, as it does draws of labels."""


def _results(
    bench: _Bench, problem: Problem | None, protocol: str, amount: str | int, draw: int | None
) -> tuple[list[Result], Classifier | None]:
    """Measure once; return a result per metric, and the network that was fine-tuned for them."""
    task, representation = bench.task, bench.representation
    splits = bench.outputs.splits
    drawn = None if draw is None else drawn_labels(task, amount, draw, bench.request.seed, splits)
    start = time.perf_counter()
    outcome = _outcome(bench, problem, protocol, drawn)
    seconds = round(time.perf_counter() - start, 3)
    settings = {**representation.settings, **outcome.settings}
    if draw is not None or protocol in _SEEDED:
        settings["seed"] = bench.request.seed
    result = partial(
        Result,
        protocol=protocol,
        features=representation.name,
        labels=amount,
        draw=draw,
        split=task.split,
        seed=representation.seed,
        epoch=representation.epoch,
        data=task.data,
        seconds=seconds,
        settings=settings,
    )
    return per_metric(result, outcome.scores, task.truth, task.num_classes), outcome.network


def _save(networks: Path, bench: _Bench, network: Classifier, result: Result) -> None:
    task = bench.task
    provenance = Provenance(
        classes=task.class_names,
        data=resolved_spec(task.data),
        labels=result.labels,
        draw=result.draw,
        train_images=len(task.train),
        split=task.split,
        scored_images=len(task.scored),
        scored_digest=image_digest(task.scored, network.preprocess),
        settings=result.settings,
    )
    known = {"method": result.features, "epoch": result.epoch, "seed": result.seed}
    folder = networks / network_name(result.features, result.labels, result.draw)
    save_classifier(folder, network, provenance, {**network.backbone.origin, **known})


def per_metric(
    result: Callable[..., Result], scores: Tensor, truth: Tensor, num_classes: int
) -> list[Result]:
    """Return a result for top1, mean_per_class, and top5 where there are ten classes or more.

    Args:
        result: makes one of a metric, its value and the predictions.
        scores: [M,K].
        truth: [M] labels.
        num_classes: K.
    """
    values = {"top1": accuracy(scores, truth), "mean_per_class": mean_per_class(scores, truth)}
    if num_classes >= 10:
        values["top5"] = accuracy(scores, truth, top=5)
    predictions = predicted(scores)[:, 0]  # [M]
    return [result(metric=name, value=value, predictions=predictions) for name, value in values.items()]


def _outcome(bench: _Bench, problem: Problem | None, protocol: str, drawn: Tensor | None) -> Outcome:
    """Measure by the labels at `drawn` (None: all)."""
    device = bench.machine.device
    if problem is None:
        return _finetuned(bench, drawn)
    if protocol == "knn":
        return knn(problem, drawn, device=device)
    if protocol == "linear":
        return _linear(bench, problem)
    if protocol == "online":
        assert bench.representation.online_probe is not None
        return online(problem, bench.representation.online_probe)
    if drawn is not None:
        return few_label_logistic(problem, drawn, device=device)
    return transfer_logistic(problem, device) if bench.request.transfer else logistic(problem, device)


def _linear(bench: _Bench, problem: Problem) -> Outcome:
    request, machine = bench.request, bench.machine
    training = None
    if request.augment:
        training = augmented_training(
            bench.representation.network,
            bench.representation.preprocess,
            bench.task.train,
            seed=request.seed,
            device=machine.device,
            num_workers=machine.num_workers,
        )
    outcome = linear(problem, seed=request.seed, device=machine.device, training=training)
    return Outcome(outcome.scores, {**outcome.settings, "augment": request.augment})


def _finetuned(bench: _Bench, drawn: Tensor | None) -> Outcome:
    """Fine-tune with the labels at `drawn` (None: all), then score once."""
    request, machine, task, network = bench.request, bench.machine, bench.task, bench.representation.network
    assert isinstance(network, Backbone)
    supervision = Supervision(
        network,
        task.train,
        task.num_classes,
        request.freeze,
        request.seed,
        machine.device,
        machine.num_workers,
        request.finetune_batch_size,
    )
    parts = (task.fit, task.choice) if drawn is None else divided(task.labels, drawn, request.seed)
    report = partial(report_fit, f"finetune {bench.representation.name}")
    classifier, settings = finetune(supervision, *parts, request.grid, report, METRICS[request.metric])
    return Outcome(supervision.scores(classifier, task.scored), settings, classifier)


def report_fit(name: str, line: str) -> None:
    """Tell of a fit that has ended."""
    print(f"{name}, {line}", file=sys.stderr, flush=True)


def _vectors(
    representation: Representation, images: ImageSet, data: str, split: str, machine: Machine
) -> Tensor:
    vectors = kept(
        representation.cache,
        representation.network,
        representation.preprocess,
        images,
        data,
        split,
        device=machine.device,
        num_workers=machine.num_workers,
        shown_as=f"{representation.name}, {split} images",
    ).vectors
    require_finite(vectors.isfinite().all(dim=1), representation.name, split)
    return vectors


def require_finite(finite: Tensor, name: str, split: str) -> None:
    """Raise UserError where `finite` [N] is False: of images whose features are not."""
    if broken := int((~finite).sum()):
        raise UserError(
            f"the {name} features of {broken} of {len(finite)} {split} images "
            "are not finite: the weights are broken"
        )
