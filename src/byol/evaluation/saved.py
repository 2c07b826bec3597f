"""A network that was saved with its classifier, on labelled images: scored as it is, nothing is trained."""

import time
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial

from byol.augment.evaluation import Preprocess
from byol.config import EvaluateConfig
from byol.data.images import in_memory
from byol.data.source import Source, resolved_spec
from byol.errors import UserError, listed
from byol.evaluation.classifier import Classifier, Provenance
from byol.evaluation.features import extract, image_digest
from byol.evaluation.measure import Machine, per_metric, unusual_precision
from byol.evaluation.results import Result
from byol.evaluation.target import Target
from byol.evaluation.task import divide
from byol.settings import flag
from byol.types import ImageSet

_MEANINGFUL = (
    *("target", "data", "data_dir", "metric", "device", "precision", "num_workers", "report", "plot"),
    *("out", "logger", "tracking_uri", "experiment", "debug"),
)
"""Settings that do not concern training, nor the building of the network."""


def check_settings(config: EvaluateConfig, given: Collection[str]) -> None:
    """Raise UserError for a given setting that has nothing to say about a network which is scored as it is.

    Its default is none either: what was learned, and of which labels, is the network's own.
    """
    for name in given:
        value = getattr(config, name)
        if name not in _MEANINGFUL and value is not None and value is not False:
            raise UserError(
                f"{flag(name)} does not go with '{config.target}': "
                "a network with its classifier is scored as it is"
            )


@dataclass(frozen=True)
class EvaluationSet:
    """Labelled images for a classifier."""

    data: str
    images: ImageSet
    split: str
    """test, holdout, or all: a set without a test split that is not what the classifier learned from."""


def evaluation_set(classifier: Classifier, source: Source) -> EvaluationSet:
    """Return the images of a source on which a classifier is scored.

    Those are the test split. Of a source without one they are all images; but where it is what the
    classifier learned from, only those that were held out and scored then.

    Raises:
        UserError: there are no labels, or the classes are not the classifier's.
    """
    provenance = classifier.provenance
    assert provenance is not None
    if source.test is not None and source.test.labels is not None:
        images, split = source.test, "test"
    else:
        held = _held_out(source, provenance, classifier.preprocess)
        images, split = (source.train, "all") if held is None else (held, "holdout")
    if images.labels is None:
        raise UserError(f"{source.name} has no labels: there is nothing to score a classifier against")
    if split == "all":
        _check_others(source.name, provenance)
    _check_classes(classifier.classes, images, source.name)
    return EvaluationSet(source.name, in_memory(images), split)


def scored(
    classifier: Classifier, target: Target, chosen: EvaluationSet, machine: Machine
) -> Iterator[list[Result]]:
    """Yield the results of a classifier, as of the fine-tuning that it comes from."""
    provenance, labels = classifier.provenance, chosen.images.labels
    assert provenance is not None and labels is not None
    # Of the settings of the fit all but the precision: that of this scoring counts.
    fitted = {name: value for name, value in provenance.settings.items() if name != "precision"}
    start = time.perf_counter()
    features = extract(
        classifier,
        classifier.preprocess,
        chosen.images,
        device=machine.device,
        num_workers=machine.num_workers,
    )
    result = partial(
        Result,
        protocol="finetune",
        features=target.method,
        labels=provenance.labels,
        draw=provenance.draw,
        split=chosen.split,
        seed=target.seed,
        epoch=target.epoch,
        data=chosen.data,
        seconds=round(time.perf_counter() - start, 3),
        settings={**target.described, **fitted, **unusual_precision(classifier.backbone)},
    )
    yield per_metric(result, features.vectors, labels, len(classifier.classes))


def _held_out(source: Source, provenance: Provenance, preprocess: Preprocess) -> ImageSet | None:
    """Return the images that were held out and scored, where the classifier learned from the others."""
    count = provenance.train_images + provenance.scored_images
    if provenance.split != "holdout" or source.train.labels is None or len(source.train) != count:
        return None
    held = divide(source, provenance.scored_images / count).scored
    return held if image_digest(held, preprocess) == provenance.scored_digest else None


def _check_others(data: str, provenance: Provenance) -> None:
    """Raise UserError where all images of a source would be scored, though the classifier learned from it.

    A Dataset's name is that of its class alone: of one with the same name there is a warning.
    """
    if resolved_spec(data) != resolved_spec(provenance.data):
        return
    what = f"the network learned from {data}, and these are not exactly the images that it learned from"
    if ":" not in data:
        warnings.warn(f"{what}: all are scored, also those that it may have seen", stacklevel=2)
        return
    raise UserError(
        f"{what}: which of them it has seen is not known (put the images to score under test/, "
        "restore the images as they were, or name others with --data)"
    )


def _check_classes(known: tuple[str, ...], images: ImageSet, data: str) -> None:
    """Raise UserError where the data have other classes, or in another order.

    Classes without names are numbered as far as they occur: there the last ones may be missing.
    """
    named = tuple(images.class_names or ())
    numbered = known == tuple(map(str, range(len(known))))
    if named != known and not (numbered and named == known[: len(named)]):
        raise UserError(f"the classes of {data} are not those of the network: {_difference(named, known)}")


def _difference(named: tuple[str, ...], known: tuple[str, ...]) -> str:
    only = {"data": [n for n in named if n not in known], "network": [n for n in known if n not in named]}
    told = [f"only the {where} has {listed(names)}" for where, names in only.items() if names]
    return "; ".join(told) or "they stand in another order"
