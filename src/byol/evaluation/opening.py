"""From what the user names - a run, a bundle or a plain weights file, and data - to both of them, open."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from byol.augment.evaluation import preprocess_for
from byol.augment.presets import natural_preset
from byol.config import EmbedConfig, EvaluateConfig
from byol.core.backbone import Backbone, lay_out
from byol.core.input_normalization import input_normalization, other_weights_hint
from byol.core.named_backbone import build_backbone
from byol.data.images import in_memory, natural_side, resident
from byol.data.source import Source, open_source
from byol.errors import UserError
from byol.evaluation.target import Data, Target, open_data, open_target
from byol.settings import flag, settings_from
from byol.weights import load_plain, read_weights

_SUFFIXES = (".safetensors", ".pt", ".pth")
_OF_WEIGHTS = ("backbone", "image_size", "channels", "stem", "preset", "normalize")
"""Settings of a plain weights file; None: as `byol pretrain` would choose for the data."""


Settings = TypeVar("Settings", EvaluateConfig, EmbedConfig)


def command_settings(
    kind: type[Settings], target: str | Path, data: Data | None, settings: Mapping[str, Any]
) -> Settings:
    """Return a command's settings from keywords. Data without a name have no place among them.

    Raises:
        UserError: as `settings_from`.
    """
    named = str(data) if isinstance(data, str | Path) else None
    return settings_from(kind, {**settings, "target": str(target), "data": named})


def open_with_data(
    config: EvaluateConfig | EmbedConfig, data: Data | None, net: nn.Module | None
) -> tuple[Target, Source]:
    """Open what is evaluated, and the data to evaluate it on.

    Args:
        config: names a run directory, a bundle folder or a weights file, and the network of the latter.
        data: as `byol pretrain --data`; None: the run's own.
        net: an untrained copy of the network, where it was the user's own; it gets the weights.

    Raises:
        UserError: something is missing, does not exist or does not fit.
    """
    file = Path(config.target)
    on_error = config.on_error if isinstance(config, EmbedConfig) else "stop"
    if file.is_file() or (file.suffix in _SUFFIXES and not file.exists()):
        target, source = _open_file(file, config, data, net, on_error)
    else:
        for name in _OF_WEIGHTS:
            if getattr(config, name) is not None:
                raise UserError(
                    f"{flag(name)} is for a plain weights file: '{config.target}' is to bring its own network"
                )
        target = open_target(file, net)
        source = open_data(target, data, config.data_dir, on_error)
    target.backbone.precision = config.precision or "fp32"
    lay_out(target.backbone)
    return target, source


def _open_file(
    file: Path,
    config: EvaluateConfig | EmbedConfig,
    data: Data | None,
    net: nn.Module | None,
    on_error: str,
) -> tuple[Target, Source]:
    state = read_weights(file)
    if config.backbone is None and net is None:
        raise UserError(
            f"{file} holds weights alone: give the name of their network with --backbone, and what is not "
            "as byol pretrain would choose it for the data (--image-size, --stem, --channels, --preset)"
        )
    if data is None:
        raise UserError(f"{file} does not tell which data to use: name them with --data")
    folder = config.data_dir or "./datasets"
    source = open_source(data, channels=config.channels, data_dir=folder, on_error=on_error)
    source = replace(source, train=in_memory(source.train))
    backbone = _build(config, source, net)
    left_out = load_plain(backbone.net, state, str(file))
    hint = other_weights_hint(backbone.net, str(file)) if config.normalize is None else ""
    for line in filter(None, (left_out, hint)):
        print(line, file=sys.stderr)
    assert backbone.preprocess is not None
    described = {"weights": str(file), "backbone": config.backbone or type(net).__name__}
    return Target(backbone.eval(), backbone.preprocess, None, {}, described), source


def _build(config: EvaluateConfig | EmbedConfig, source: Source, net: nn.Module | None) -> Backbone:
    """Build the network, with the preprocessing of its training."""
    size = config.image_size or natural_side(source.pretraining, resident(source.pretraining))
    preset = config.preset or natural_preset(source.name, size)
    if config.backbone is None:
        assert net is not None
        backbone = Backbone(net, size, channels=source.channels)
    else:
        backbone = build_backbone(config.backbone, size, source.channels, config.stem)
    normalize = input_normalization(backbone.net, source.channels, config.normalize)
    backbone.preprocess = preprocess_for(preset, size, source.channels, normalize)
    return backbone
