"""How the pixels that a network sees are normalised: as those that its weights were trained on."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from byol.augment.presets import IMAGENET_MEAN, IMAGENET_STD, MeanAndStd, pixel_statistics
from byol.config import InputNormalization
from byol.errors import UserError


def input_normalization(
    net: nn.Module, channels: int, choice: InputNormalization | Mapping[str, Any] | None
) -> MeanAndStd:
    """Return mean and standard deviation [C] for a network; None stands for ImageNet's.

    Raises:
        UserError: timm's are asked for, and the network is none of its; or values of the user's own are not
            a mean and a positive standard deviation for each channel.
    """
    if isinstance(choice, Mapping):
        return _given(choice, channels)
    if choice == "none":
        return (0.0,) * channels, (1.0,) * channels
    if choice != "timm":
        return pixel_statistics(channels)
    own = _of_timm(net)
    if own is None:
        raise UserError(
            f"--normalize timm is for timm's networks, and {type(net).__name__} is none: give another choice"
        )
    return pixel_statistics(channels, *own)


def other_weights_hint(net: nn.Module, file: str) -> str:
    """Return a line for weights of a file that get ImageNet's normalisation, where those that timm has for
    the network want another one; else nothing."""
    own = _of_timm(net)
    if own in (None, (IMAGENET_MEAN, IMAGENET_STD)):
        return ""
    return f"pixels are normalised as of ImageNet: if the weights in {file} are timm's, give --normalize timm"


def _given(values: Mapping[str, Any], channels: int) -> MeanAndStd:
    if values.keys() == {"mean", "std"} and all(map(_are_numbers, values.values())):
        mean, std = (tuple(map(float, values[name])) for name in ("mean", "std"))
        if len(mean) == len(std) == channels and min(std) > 0:
            return mean, std
    raise UserError(
        f"normalize is {dict(values)}: give mean and std, {channels} numbers each, std above 0 "
        "(of pixels in [0,1])"
    )


def _are_numbers(values: Any) -> bool:
    is_list = isinstance(values, list | tuple)
    return is_list and all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _of_timm(net: nn.Module) -> MeanAndStd | None:
    """Return what timm says of the weights that it has for a network: for three channels."""
    told = getattr(net, "pretrained_cfg", None) or {}
    return (tuple(told["mean"]), tuple(told["std"])) if "mean" in told and "std" in told else None
