"""What settings may be, and what they are checked with."""

from typing import Any, Literal

from byol.errors import UserError, require_known

Optimizer = Literal["lars", "adamw", "sgd"]
PresetName = Literal["imagenet", "official", "simsiam", "simsiam-small", "pixpro", "small", "glyph"]
Precision = Literal["fp32", "bf16"]
Normalization = Literal["batch", "group"]
TargetStatistics = Literal["own", "copy", "average"]
Stem = Literal["small", "strided", "standard"]
InputNormalization = Literal["imagenet", "timm", "none"]
TIMM_WEIGHTS = "timm"
"""In the place of a weights file: what timm has for the network."""
LOGGERS = ("tensorboard", "mlflow", "wandb", "none")


def logger_names(text: str) -> tuple[str, ...]:
    """Return the names in a list separated by commas; nothing for "none".

    Raises:
        UserError: a name is unknown (the closest is given), or none stands beside others.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        require_known("logger", name, LOGGERS)
    if "none" in names and len(names) > 1:
        raise UserError(f"logger is '{text}': none stands alone")
    return () if names == ("none",) else names


def at_least(config: Any, low: float, *names: str) -> None:
    """Raise UserError where a setting of these names is given, and is not `low` or more."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= low:  # nor is NaN
            raise UserError(f"{name} is {value}, it must be at least {low:g}")
