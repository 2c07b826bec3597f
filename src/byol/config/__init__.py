"""Every setting that a command takes, with its unit and default. Flags, YAML keys and help come from here."""

from byol.config.choices import (
    TIMM_WEIGHTS,
    InputNormalization,
    Normalization,
    Optimizer,
    Precision,
    PresetName,
    Stem,
    TargetStatistics,
    logger_names,
)
from byol.config.demo import DemoConfig
from byol.config.embed import EmbedConfig
from byol.config.evaluate import EvaluateConfig
from byol.config.pretrain import PretrainConfig

__all__ = [
    "TIMM_WEIGHTS",
    "DemoConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "InputNormalization",
    "Normalization",
    "Optimizer",
    "Precision",
    "PresetName",
    "PretrainConfig",
    "Stem",
    "TargetStatistics",
    "logger_names",
]
