"""From settings to everything concrete: images, view specifications, sizes, lengths in steps."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from byol.augment.presets import ViewSpec, natural_preset
from byol.augment.view_settings import view_specs_of
from byol.config import TIMM_WEIGHTS, Optimizer, PretrainConfig
from byol.core.heads import BYOL_WIDTHS, SIMSIAM_WIDTHS
from byol.data.decoders import decoder_count
from byol.data.folder import NAMES_ENCODED
from byol.data.images import Concatenation, Subset, in_memory, natural_side, resident
from byol.data.source import open_source, resolved_spec
from byol.data.splits import HOLDOUT, holdout_split
from byol.duration import steps_of
from byol.errors import UserError
from byol.evaluation.monitor import images_measured
from byol.methods import PIXEL_METHODS, Method
from byol.optim.length_presets import PIXEL_PRESET, LengthPreset, preset_for
from byol.training.memory_limit import memory_limit
from byol.training.processes import launch_of
from byol.types import ImageSet

Data = str | Dataset[Any] | Tensor
LARGEST_SIDE = 256
"""In pixels, of images that stay in memory: decoding larger ones in time costs less than their bytes."""


@dataclass(frozen=True)
class PreparedData:
    """The images of a run."""

    name: str
    train: ImageSet
    """The labelled or unlabelled train split without the hold-out."""
    holdout: ImageSet
    pretraining: ImageSet
    """`train`, and the unlabelled images where the source has some."""
    images: Tensor | None
    """[N,C,H,W] uint8: `pretraining` in memory; None where it is streamed."""
    channels: int
    skipped: tuple[str, ...]
    """Names of unreadable images that were left out."""
    passed_over: tuple[str, ...] = ()
    """Names of images of kinds that are not read."""

    def identity(self) -> dict[str, Any]:
        """Return what tells these images from others by their names: resuming needs the same ones."""
        digest = hashlib.sha256("\n".join(self.pretraining.keys).encode(errors=NAMES_ENCODED)).hexdigest()
        return {"images": len(self.pretraining), "names": digest}


def prepare_data(data: Data, config: PretrainConfig) -> PreparedData:
    """Open the data, split off the hold-out, and load into memory what fits.

    Raises:
        UserError: anything the user can fix about the data.
    """
    limit = memory_limit(config)
    source = open_source(data, channels=config.channels, data_dir=config.data_dir, on_error=config.on_error)
    share = _held_out(config, source.train) or 0.0
    train_indices, holdout_indices = holdout_split(len(source.train), source.train.labels, share)
    train = in_memory(Subset(source.train, train_indices), limit, LARGEST_SIDE)
    holdout = in_memory(Subset(source.train, holdout_indices), limit, LARGEST_SIDE)
    pretraining = train if source.unlabeled is None else Concatenation(train, source.unlabeled)
    name = resolved_spec(data) if isinstance(data, str) else source.name
    images = None if config.in_memory == "off" else resident(pretraining, limit, LARGEST_SIDE)
    if images is None and config.in_memory == "on":
        raise UserError(
            f"--in-memory on: the images of {name} are not of one size of at most {LARGEST_SIDE} pixels a "
            "side; --in-memory auto streams them"
        )
    left_out = source.skipped, source.passed_over
    return PreparedData(name, train, holdout, pretraining, images, source.channels, *left_out)


def resolve(config: PretrainConfig, data: PreparedData) -> PretrainConfig:
    """Fill in every setting that follows from others, from the data or from the length of training.

    Raises:
        UserError: a setting does not suit the data, or another one.
    """
    size = config.image_size or natural_side(data.pretraining, data.images)
    preset = natural_preset(data.name, size, config.method) if config.preset is None else config.preset
    steps_per_epoch = len(data.pretraining) // config.batch_size or 1
    total_steps = steps_of(config.epochs, "epochs", steps_per_epoch)
    optimizer = config.optimizer or ("sgd" if config.method == "simsiam" else "lars")  # as published
    defaults = _optimizer_defaults(optimizer, config.method, total_steps / steps_per_epoch)
    tau = defaults.tau if config.tau is None else config.tau
    projection, hidden = SIMSIAM_WIDTHS if config.method == "simsiam" else BYOL_WIDTHS
    config = replace(
        config,
        data=data.name,
        image_size=size,
        channels=data.channels,
        holdout=_held_out(config, data.train),
        knn_every=config.knn_every or _knn_every(config, data, total_steps),
        # Kept: another limit, on another machine, would change the views of a run that goes on there.
        in_memory="off" if data.images is None else "on",
        preset=preset,
        projection_size=config.projection_size or projection,
        projection_hidden_size=config.projection_hidden_size or hidden,
        optimizer=optimizer,
        warmup=config.warmup or f"{_default_warmup(config, steps_per_epoch, total_steps)}st",
        data_dir=str(Path(config.data_dir).expanduser().absolute()),
        backbone_weights=_absolute_weights(config.backbone_weights),
        normalize=config.normalize or ("timm" if config.backbone_weights == TIMM_WEIGHTS else "imagenet"),
        base_lr=defaults.base_lr if config.base_lr is None else config.base_lr,
        weight_decay=defaults.weight_decay if config.weight_decay is None else config.weight_decay,
        tau=None if config.method == "simsiam" else tau,
    )
    if steps_of(config.log_every, "log_every", steps_per_epoch, total_steps) == 0:
        raise UserError("log_every is 0: give steps (20st); a run without metrics cannot be watched")
    _check_preset(config, data)
    _check_final_rate(config)
    return config


def _held_out(config: PretrainConfig, images: ImageSet) -> float | None:
    """Return what to hold out; None where it was left open, and there is nothing to measure on it."""
    measurable = images.labels is not None or images.masks is not None
    return HOLDOUT if config.holdout is None and measurable else config.holdout


def _knn_every(config: PretrainConfig, data: PreparedData, total_steps: int) -> str:
    """Return a tenth of the run or longer, so that measuring takes about a ninth of the time at most; where
    that exceeds the run, "0", unless an online probe is to be scored at its end.

    Training on an image costs about as much as measuring eight, or, where it is decoded first, one or more.
    """
    images = images_measured(data.train, data.holdout) * (8 if data.images is None else 1)
    steps = -(-images // config.batch_size)
    if 10 * steps <= total_steps:
        return "10%"
    return f"{steps}st" if steps <= total_steps or config.online_probe else "0"


def peak_rate(config: PretrainConfig) -> float:
    """Return the learning rate behind the warm-up, scaled to the batch, of settings that are resolved."""
    assert config.base_lr is not None
    return config.base_lr * config.batch_size / 256


def _check_final_rate(config: PretrainConfig) -> None:
    if config.final_lr > peak_rate(config):
        raise UserError(
            f"final_lr is {config.final_lr:g}, above the peak of the learning rate, {peak_rate(config):g} "
            "(base-lr x batch-size / 256)"
        )


def _check_preset(config: PretrainConfig, data: PreparedData) -> None:
    """Raise UserError where the views are none for this method or these images."""
    specs, preset = view_specs_of(config.preset), config.preset
    which = f"preset '{preset}'" if isinstance(preset, str) else "one of the views"
    if config.crop_scale is not None and all(spec.crop is None for spec in specs):
        raise UserError(f"crop_scale means nothing with {which}, which has no crop")
    if all(spec.crop is not None for spec in specs):
        return
    if config.method in PIXEL_METHODS:
        raise UserError(
            f"{which} has no crop, and {config.method} matches places of two crops: give --preset small"
        )
    if data.images is None or data.images.shape[2] != data.images.shape[3]:
        raise UserError(
            f"{which} has no crop: it takes square images of one size in memory, at most 256 pixels"
        )


def view_specs(config: PretrainConfig) -> tuple[ViewSpec, ViewSpec]:
    """Return the preset's two views, with the run's crop scale."""
    first, second = view_specs_of(config.preset)
    return _with_crop_scale(first, config.crop_scale), _with_crop_scale(second, config.crop_scale)


def view_size(config: PretrainConfig) -> int:
    """Return the side of the views in pixels, of settings that are resolved."""
    assert config.image_size is not None
    return config.view_size or config.image_size


@dataclass(frozen=True)
class Lengths:
    """Durations of a run in optimizer steps."""

    total: int
    warmup: int
    log: int
    knn: int
    checkpoint: int
    backbone: int


def lengths(config: PretrainConfig, steps_per_epoch: int) -> Lengths:
    """Turn the durations of settings that are resolved into steps.

    Raises:
        UserError: a duration cannot be read, or the warm-up is longer than the run.
    """
    total = steps_of(config.epochs, "epochs", steps_per_epoch)
    if total == 0:
        raise UserError("epochs is 0: train for at least one epoch or step")

    def steps(name: str) -> int:
        return steps_of(getattr(config, name), name, steps_per_epoch, total)

    # Runs that were saved before resolving them left warm-ups open.
    warmup = _default_warmup(config, steps_per_epoch, total) if config.warmup is None else steps("warmup")
    if warmup >= total:
        raise UserError(
            f"the warm-up ({warmup} steps) is as long as the run ({total} steps): shorten --warmup"
        )
    log = max(1, min(steps("log_every"), total // 3))  # a short run is seen to move, too
    names = ("knn_every", "checkpoint_every", "backbone_every")
    return Lengths(total, warmup, log, *map(steps, names))


def _default_warmup(config: PretrainConfig, steps_per_epoch: int, total: int) -> int:
    """Return the published number of epochs, but at most a quarter of the run; SimSiam has no warm-up."""
    epochs = {"byol": 10, "simsiam": 0, "pixpro": 5, "pixcontrast": 5}[config.method]
    return min(epochs * steps_per_epoch, total // 4)


def worker_count(config: PretrainConfig) -> int:
    """Return how many processes decode images for each one that trains; a machine's cores are shared out."""
    return decoder_count(config.num_workers, launch_of(config).devices)


def _optimizer_defaults(optimizer: Optimizer, method: Method, epochs: float) -> LengthPreset:
    """Return learning rate, weight decay and tau for this optimizer and length."""
    published = PIXEL_PRESET if method in PIXEL_METHODS else preset_for(max(epochs, 1))
    if optimizer == "lars":
        return published
    return LengthPreset(2e-3 if optimizer == "adamw" else 0.05, 1e-4, published.tau)


def _absolute_weights(weights: str | None) -> str | None:
    return weights if weights in (None, TIMM_WEIGHTS) else str(Path(weights).expanduser().absolute())


def _with_crop_scale(spec: ViewSpec, smallest: float | None) -> ViewSpec:
    if smallest is None or spec.crop is None:
        return spec
    return replace(spec, crop=replace(spec.crop, scale=(smallest, 1.0)))
