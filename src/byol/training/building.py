"""From resolved settings to the module that trains and the batches that it trains on."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from byol.augment.evaluation import preprocess_for
from byol.augment.presets import natural_preset
from byol.config import TIMM_WEIGHTS, PretrainConfig
from byol.core.backbone import Backbone
from byol.core.base_learner import Learner
from byol.core.heads import BYOL_WIDTHS
from byol.core.input_normalization import input_normalization, other_weights_hint
from byol.core.learner import BYOL
from byol.core.named_backbone import build_backbone
from byol.core.pixel_learner import PixelCL
from byol.core.processes import synchronize_batch_norms
from byol.data.batches import BatchPlan, LabelledBatches, ResidentBatches, streamed_batches
from byol.errors import UserError
from byol.methods import PIXEL_METHODS
from byol.randomness import NETWORK, derived_seed
from byol.rundir import RunDirectory
from byol.training.compilation import use_compile
from byol.training.module import OptimizerSettings, Pretraining
from byol.training.online_probe import OnlineProbe
from byol.training.preparation import PreparedData
from byol.training.processes import is_first_process
from byol.training.resolution import Lengths, decoders, peak_rate, view_size, view_specs
from byol.training.view_makers import ResidentViews, StreamedViews, ViewMaker
from byol.weights import load_plain, read_weights, save_weights


def build_module(
    config: PretrainConfig,
    data: PreparedData,
    plan: BatchPlan,
    durations: Lengths,
    net: nn.Module | None,
    hidden_layer: str | int | None,
) -> Pretraining:
    """Return the module, around the backbone that the settings name or the user's own network, `net`."""
    torch.manual_seed(derived_seed(config.seed, NETWORK))
    if net is None:
        named = _named_backbone(config)
        learner = _learner(config, named.net, None, durations.total)
        learner.backbone.architecture = named.architecture
    else:
        learner = _learner(config, net, hidden_layer, durations.total)
    if plan.processes > 1 and torch.cuda.is_available():
        synchronize_batch_norms(learner)
    specs, compiled = view_specs(config), use_compile(config)
    if compiled:
        torch.compiler.reset()  # what earlier runs of this program compiled would count against this one
    preprocess = learner.backbone.preprocess
    assert preprocess is not None
    normalize = preprocess.mean, preprocess.std
    if data.images is not None:
        size, boxes = learner.image_size, learner.takes_views
        make_views: ViewMaker = ResidentViews(data.images, specs, size, plan, compiled, normalize, boxes)
    else:
        make_views = StreamedViews(specs, plan, compiled, normalize)
    settings = _optimizer_settings(config, durations)
    probe = _online_probe(data, learner) if config.online_probe else None
    compiled = compiled and (config.compile == "on" or _is_one_graph(learner))
    return Pretraining(learner, make_views, settings, plan, compiled, probe)


def batches(
    config: PretrainConfig, data: PreparedData, plan: BatchPlan, start_step: int, total_steps: int
) -> Any:
    """Return an iterable of `Batch`es from one optimizer step to another."""
    positions = (start_step * plan.accumulate, total_steps * plan.accumulate)
    if data.images is not None:
        found: Any = ResidentBatches(plan, *positions)
    else:
        specs, size = view_specs(config), view_size(config)
        found = streamed_batches(data.pretraining, plan, specs, size, *positions, *decoders(config, plan))
    if not config.online_probe:
        return found
    assert data.pretraining.labels is not None
    return LabelledBatches(found, data.pretraining.labels, plan)


def save_initial_weights(run: RunDirectory, module: Pretraining) -> None:
    """Keep the weights of step 0: the random-init baseline is evaluated on them."""
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    save_weights(module.learner.backbone.net, run.initial_weights)


def _is_one_graph(learner: Learner) -> bool:
    """Say whether torch.compile takes the networks whole: at every synchronised batch norm it breaks off
    (pytorch issue 161302), and what is left between two of them gains nothing."""
    return not any(isinstance(module, nn.SyncBatchNorm) for module in learner.modules())


def _named_backbone(config: PretrainConfig) -> Backbone:
    assert config.image_size is not None and config.channels is not None
    weights = config.backbone_weights
    backbone = build_backbone(
        config.backbone,
        config.image_size,
        config.channels,
        config.stem,
        normalization=config.normalization,
        pretrained=weights == TIMM_WEIGHTS,
        download_dir=config.data_dir,
    )
    if weights is not None and weights != TIMM_WEIGHTS:
        left_out = load_plain(backbone.net, read_weights(Path(weights)), weights)
        hint = other_weights_hint(backbone.net, weights) if config.normalize == "imagenet" else ""
        for line in filter(None, (left_out, hint)):
            if is_first_process():
                print(line, file=sys.stderr)
    return backbone


def _learner(
    config: PretrainConfig, net: nn.Module, hidden_layer: str | int | None, total_steps: int
) -> Learner:
    make = _pixel_learner if config.method in PIXEL_METHODS else _instance_learner
    learner = make(config, net, hidden_layer, total_steps)
    assert config.image_size is not None and config.channels is not None
    if view_size(config) != config.image_size:
        _use_view_size(learner, view_size(config))
    preset = config.preset
    if not isinstance(preset, str):  # views of one's own do not tell how images are cut at test time
        preset = natural_preset(config.data, config.image_size, config.method)
    normalize = input_normalization(net, config.channels, config.normalize)
    learner.backbone.preprocess = preprocess_for(preset, config.image_size, config.channels, normalize)
    return learner


def _use_view_size(learner: Learner, side: int) -> None:
    """Have a learner draw views of another side than the images that its backbone is for."""
    try:
        learner.backbone.check_takes(side)
    except UserError as error:
        raise UserError(f"views of {side} pixels (--view-size) do not suit this network: {error}") from error
    learner.image_size = side


def _instance_learner(
    config: PretrainConfig, net: nn.Module, hidden_layer: str | int | None, total_steps: int
) -> BYOL:
    assert config.image_size is not None
    return BYOL(
        net,
        config.image_size,
        hidden_layer,
        config.projection_size,
        config.projection_hidden_size,
        moving_average_decay=1.0 if config.tau is None else config.tau,  # SimSiam has no target
        use_momentum=config.method == "byol",
        sync_batchnorm=False,  # done once the processes are known, which have not met yet
        channels=config.channels,
        total_steps=total_steps,
        target_statistics=config.target_statistics,
        normalization=config.normalization,
        gather_projections=config.gather_projections,
    )


def _pixel_learner(
    config: PretrainConfig, net: nn.Module, hidden_layer: str | int | None, total_steps: int
) -> PixelCL:
    assert config.image_size is not None and config.tau is not None
    return PixelCL(
        net,
        config.image_size,
        config.feature_layer,
        hidden_layer,
        config.projection_size or BYOL_WIDTHS[0],  # runs saved before widths were resolved left them open
        config.projection_hidden_size or BYOL_WIDTHS[1],
        moving_average_decay=config.tau,
        ppm_num_layers=config.propagation_layers,
        ppm_gamma=config.propagation_gamma,
        distance_thres=config.positive_distance,
        similarity_temperature=config.pixel_temperature,
        alpha=config.instance_weight,
        use_pixpro=config.method == "pixpro",
        total_steps=total_steps,
        sync_batchnorm=False,
        channels=config.channels,
        normalization=config.normalization,
    )


def _online_probe(data: PreparedData, learner: Learner) -> OnlineProbe:
    labels, names = data.pretraining.labels, data.pretraining.class_names
    if labels is None:
        some = "only some of the" if data.train.labels is not None else "no"
        raise UserError(f"--online-probe learns from labels, and {data.name} has {some} images labelled")
    return OnlineProbe(learner.backbone.num_features, max(len(names or ()), 1 + int(labels.max())))


def _optimizer_settings(config: PretrainConfig, durations: Lengths) -> OptimizerSettings:
    assert config.weight_decay is not None and config.optimizer is not None
    return OptimizerSettings(
        config.optimizer,
        peak_rate(config),
        config.weight_decay,
        config.method == "simsiam",
        durations.warmup,
        durations.total,
        config.warmup_start,
        config.final_lr,
    )
