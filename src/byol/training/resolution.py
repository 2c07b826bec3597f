"""What a run's settings are once those left open follow from others, from the data and from its length."""

from dataclasses import dataclass, replace
from pathlib import Path

from byol.augment.presets import ViewSpec, natural_preset
from byol.augment.view_settings import view_specs_of
from byol.config import TIMM_WEIGHTS, Optimizer, PretrainConfig
from byol.core.heads import BYOL_WIDTHS, SIMSIAM_WIDTHS
from byol.data.batches import BatchPlan
from byol.data.decoders import in_advance
from byol.data.images import natural_side
from byol.duration import steps_of
from byol.errors import UserError
from byol.evaluation.monitor import images_measured
from byol.methods import PIXEL_METHODS, Method
from byol.optim.length_presets import PIXEL_PRESET, LengthPreset, preset_for
from byol.training.preparation import PreparedData, held_out, worker_count
from byol.training.processes import launch_of

_BATCHES_READY = 4


@dataclass(frozen=True)
class _Published:
    """What a method's paper trains with."""

    optimizer: Optimizer
    widths: tuple[int, int]
    """Of projections and of hidden layers."""
    warmup_epochs: int
    preset: LengthPreset | None = None
    """With LARS; None: as the length of training has it."""
    has_tau: bool = True


_PUBLISHED: dict[Method, _Published] = {
    "byol": _Published("lars", BYOL_WIDTHS, 10),
    "simsiam": _Published("sgd", SIMSIAM_WIDTHS, 0, has_tau=False),
    "pixpro": _Published("lars", BYOL_WIDTHS, 5, PIXEL_PRESET),
    "pixcontrast": _Published("lars", BYOL_WIDTHS, 5, PIXEL_PRESET),
}


def resolve(config: PretrainConfig, data: PreparedData) -> PretrainConfig:
    """Fill in every setting that follows from others, from the data or from the length of training.

    Raises:
        UserError: a setting does not suit the data, or another one.
    """
    size = config.image_size or natural_side(data.pretraining, data.images)
    preset = natural_preset(data.name, size, config.method) if config.preset is None else config.preset
    steps_per_epoch = len(data.pretraining) // config.batch_size or 1
    total_steps = steps_of(config.epochs, "epochs", steps_per_epoch)
    published = _PUBLISHED[config.method]
    optimizer = config.optimizer or published.optimizer
    defaults = _optimizer_defaults(optimizer, published, total_steps / steps_per_epoch)
    tau = defaults.tau if config.tau is None else config.tau
    config = replace(
        config,
        data=data.name,
        image_size=size,
        channels=data.channels,
        holdout=held_out(config, data.train),
        knn_every=config.knn_every or _knn_every(config, data, total_steps),
        # Kept: another limit, on another machine, would change the views of a run that goes on there.
        in_memory="off" if data.images is None else "on",
        preset=preset,
        projection_size=config.projection_size or published.widths[0],
        projection_hidden_size=config.projection_hidden_size or published.widths[1],
        optimizer=optimizer,
        warmup=config.warmup or f"{_default_warmup(config, steps_per_epoch, total_steps)}st",
        data_dir=str(Path(config.data_dir).expanduser().absolute()),
        backbone_weights=_absolute_weights(config.backbone_weights),
        normalize=config.normalize or ("timm" if config.backbone_weights == TIMM_WEIGHTS else "imagenet"),
        base_lr=defaults.base_lr if config.base_lr is None else config.base_lr,
        weight_decay=defaults.weight_decay if config.weight_decay is None else config.weight_decay,
        tau=tau if published.has_tau else None,
    )
    if steps_of(config.log_every, "log_every", steps_per_epoch, total_steps) == 0:
        raise UserError("log_every is 0: give steps (20st); a run without metrics cannot be watched")
    _check_preset(config, data)
    _check_final_rate(config)
    return config


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


def decoders(config: PretrainConfig, plan: BatchPlan) -> tuple[int, int]:
    """Return how many processes make batches for this one, as shared memory allows, and how many batches each
    makes in advance."""
    asked, sharing = worker_count(config), launch_of(config).devices
    return in_advance(asked, batch_bytes(config, plan), _BATCHES_READY, sharing)


def batch_bytes(config: PretrainConfig, plan: BatchPlan) -> int:
    """Return how many bytes the crops of one batch take."""
    assert config.channels is not None
    return plan.micro_batch_size * 2 * config.channels * view_size(config) ** 2


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
    """Return the published number of epochs, but at most a quarter of the run."""
    return min(_PUBLISHED[config.method].warmup_epochs * steps_per_epoch, total // 4)


def _optimizer_defaults(optimizer: Optimizer, published: _Published, epochs: float) -> LengthPreset:
    """Return learning rate, weight decay and tau for this optimizer and length."""
    preset = published.preset or preset_for(max(epochs, 1))
    if optimizer == "lars":
        return preset
    return LengthPreset(2e-3 if optimizer == "adamw" else 0.05, 1e-4, preset.tau)


def _absolute_weights(weights: str | None) -> str | None:
    return weights if weights in (None, TIMM_WEIGHTS) else str(Path(weights).expanduser().absolute())


def _with_crop_scale(spec: ViewSpec, smallest: float | None) -> ViewSpec:
    if smallest is None or spec.crop is None:
        return spec
    return replace(spec, crop=replace(spec.crop, scale=(smallest, 1.0)))
