"""How the pixels that a network sees are normalised: as those that its weights were trained on."""

from collections.abc import Sequence

from torch import nn

from byol.augment.presets import IMAGENET_MEAN, IMAGENET_STD, normalization
from byol.config import InputNormalization
from byol.errors import UserError

MeanAndStd = tuple[Sequence[float], Sequence[float]]
"""Per channel, of pixels in [0,1]."""


def input_normalization(net: nn.Module, channels: int, choice: InputNormalization | None) -> MeanAndStd:
    """Return mean and standard deviation [C] for a network; None stands for ImageNet's.

    Raises:
        UserError: timm's are asked for, and the network is none of its.
    """
    if choice == "none":
        return (0.0,) * channels, (1.0,) * channels
    if choice != "timm":
        return normalization(channels)
    own = _of_timm(net)
    if own is None:
        raise UserError(
            f"--normalize timm is for timm's networks, and {type(net).__name__} is none: give another choice"
        )
    return normalization(channels, *own)


def other_weights_hint(net: nn.Module, file: str) -> str:
    """Return a line for weights of a file that get ImageNet's normalisation, where those that timm has for
    the network want another one; else nothing."""
    own = _of_timm(net)
    if own in (None, (IMAGENET_MEAN, IMAGENET_STD)):
        return ""
    return f"pixels are normalised as of ImageNet: if the weights in {file} are timm's, give --normalize timm"


def _of_timm(net: nn.Module) -> MeanAndStd | None:
    """Return what timm says of the weights that it has for a network: for three channels."""
    told = getattr(net, "pretrained_cfg", None) or {}
    return (tuple(told["mean"]), tuple(told["std"])) if "mean" in told and "std" in told else None
