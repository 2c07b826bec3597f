"""Judge a representation by masks: a linear head on its frozen maps, an FCN, kNN between cells."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from byol.core.backbone import Backbone
from byol.evaluation.dense_features import map_batches, pixel_classes
from byol.evaluation.dense_task import DenseTask, masks_of
from byol.evaluation.fcn import FineTuning, finetune_fcn
from byol.evaluation.measure import Machine, Representation, report_fit, require_finite
from byol.evaluation.patch_knn import patch_knn
from byol.evaluation.pixel_head import BATCH_SIZE, EPOCHS, LEARNING_RATES, PixelHeads, fit_pixel_heads
from byol.evaluation.pixel_metrics import mean_iou, pixel_accuracy, pixel_confusion
from byol.evaluation.request import Request
from byol.evaluation.results import Result
from byol.types import ImageSet


@dataclass(frozen=True)
class DenseBench:
    """One representation with a task, ready to be measured."""

    representation: Representation
    """Its network is a `Backbone`; it stays bit-identical."""
    task: DenseTask
    request: Request
    machine: Machine
    keeps_predictions: bool = False
    """In the results, for their reports."""

    @property
    def backbone(self) -> Backbone:
        """The network."""
        network = self.representation.network
        assert isinstance(network, Backbone)
        return network

    def maps(self, images: ImageSet) -> Iterator[Tensor]:
        """Yield feature maps [B,D,h,w] of all images on the device."""
        return map_batches(self.backbone, images, self.machine.device, self.machine.num_workers)


@dataclass(frozen=True)
class _Outcome:
    confusion: Tensor
    """[K,K] counts of true and predicted classes."""
    settings: dict[str, Any]
    predictions: list[Tensor] | None = None
    """uint8 [H,W] of each scored image, where they are kept."""


def dense_measured(bench: DenseBench) -> Iterator[list[Result]]:
    """Yield mIoU and pixel accuracy of each protocol: segmentation with each head, patch_knn."""
    heads: dict[str, Callable[[DenseBench], _Outcome]] = {"linear": _linear, "fcn": _fcn}
    for protocol in bench.request.protocols:
        if protocol == "patch_knn":
            yield _results(bench, protocol, _cells)
        else:
            for head in bench.request.heads:
                yield _results(bench, protocol, heads[head])


def _results(bench: DenseBench, protocol: str, measure: Callable[[DenseBench], _Outcome]) -> list[Result]:
    start = time.perf_counter()
    outcome = measure(bench)
    representation, task = bench.representation, bench.task
    result = partial(
        Result,
        protocol=protocol,
        features=representation.name,
        labels="all",
        draw=None,
        split=task.split,
        seed=representation.seed,
        epoch=representation.epoch,
        data=task.data,
        seconds=round(time.perf_counter() - start, 3),
        settings={**representation.settings, **outcome.settings, "seed": bench.request.seed},
        predictions=outcome.predictions,
    )
    values = {"miou": mean_iou(outcome.confusion), "pixel_accuracy": pixel_accuracy(outcome.confusion)}
    return [result(metric=name, value=value) for name, value in values.items()]


def _cells(bench: DenseBench) -> _Outcome:
    task, machine = bench.task, bench.machine
    confusion, settings = patch_knn(
        bench.backbone,
        task.train,
        task.scored,
        task.classes,
        seed=bench.request.seed,
        device=machine.device,
        num_workers=machine.num_workers,
    )
    return _Outcome(confusion, settings)


def _linear(bench: DenseBench) -> _Outcome:
    """Fit heads on train, take the one with the best mean IoU on the images of choice, score it."""
    task, seed, device = bench.task, bench.request.seed, bench.machine.device
    masks = masks_of(task.train)
    heads = fit_pixel_heads(
        _train_maps(bench),
        [masks[index] for index in range(len(masks))],
        len(task.classes.names),
        task.classes.void,
        seed=seed,
        device=device,
    )
    reached = _choice_ious(bench, heads)
    best = reached.index(max(reached))
    chosen = PixelHeads(heads.weight[best, None], heads.bias[best, None])
    grid = [{"lr": lr, task.chosen_on: iou} for lr, iou in zip(LEARNING_RATES, reached, strict=True)]
    settings = {"lr": LEARNING_RATES[best], "epochs": EPOCHS, "batch_size": BATCH_SIZE, "grid": grid}
    return _pixels(
        bench,
        {"head": "linear", **settings},
        (found for (found,) in _predictions(bench, chosen, task.scored)),
    )


def _train_maps(bench: DenseBench) -> list[Tensor]:
    maps = [features.cpu() for batch in bench.maps(bench.task.train) for features in batch]
    finite = torch.stack([features.isfinite().all() for features in maps])  # [N]
    require_finite(finite, bench.representation.name, "train")
    return maps


def _choice_ious(bench: DenseBench, heads: PixelHeads) -> list[float]:
    """Return the mean IoU of each head on the images that settings are chosen on."""
    task, masks = bench.task, masks_of(bench.task.choice)
    size = len(task.classes.names)
    confusions = torch.zeros(len(heads.bias), size, size, dtype=torch.int64)  # [L,K,K]
    for index, predictions in enumerate(_predictions(bench, heads, task.choice)):
        truth = [masks[index]]
        each = [pixel_confusion([prediction], truth, task.classes) for prediction in predictions]
        confusions += torch.stack(each)
    return [mean_iou(confusion) for confusion in confusions]


def _predictions(bench: DenseBench, heads: PixelHeads, images: ImageSet) -> Iterator[Tensor]:
    """Yield for each image its classes by each head, uint8 [L,H,W]; an image takes one forward pass."""
    masks, void, index = masks_of(images), bench.task.classes.void, 0
    for maps in bench.maps(images):
        height, width = masks[index].shape
        each = [pixel_classes(logits, (height, width), void) for logits in heads.logits(maps)]
        yield from torch.stack(each, dim=1).cpu()  # [B,L,H,W]
        index += len(maps)


def _fcn(bench: DenseBench) -> _Outcome:
    task, request, machine = bench.task, bench.request, bench.machine
    tuning = FineTuning(bench.backbone, task, request.seed, machine.device, machine.num_workers)
    report = partial(report_fit, f"segmentation fcn {bench.representation.name}")
    network, settings = finetune_fcn(tuning, request.grid, report)
    return _pixels(bench, {"head": "fcn", **settings}, tuning.predictions(network, task.scored))


def _pixels(bench: DenseBench, settings: dict[str, Any], predictions: Iterator[Tensor]) -> _Outcome:
    task = bench.task
    kept = list(predictions) if bench.keeps_predictions else None
    confusion = pixel_confusion(predictions if kept is None else kept, masks_of(task.scored), task.classes)
    return _Outcome(confusion, {**settings, "chosen_on": task.chosen_on}, kept)
