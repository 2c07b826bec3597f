"""Backbones by name: any of timm's, or a small ResNet of our own, with a stem that suits the images."""

from typing import Any, cast, get_args

from torch import nn

from byol.config import Normalization, Stem
from byol.core.backbone import Backbone
from byol.core.cifar_resnet import CIFAR_RESNETS, CifarResNet
from byol.errors import UserError, closest, first_line, require_known

STEMS = get_args(Stem)


def build_backbone(
    name: str,
    image_size: int,
    channels: int = 3,
    stem: str | None = None,
    *,
    normalization: Normalization = "batch",
    pretrained: bool = False,
    download_dir: str | None = None,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: any timm name, or one of `CIFAR_RESNETS`.
        image_size: side of the images in pixels; ViT and Swin are built for it.
        channels: of the images.
        stem: for ResNets, "small" (3x3 stride 1, no max-pool), "strided" (3x3 stride 2, no
            max-pool) or "standard" (7x7 stride 2, max-pool; not for `CIFAR_RESNETS`); None: small
            below 112 pixels, else standard, or strided for `CIFAR_RESNETS`.
        normalization: as of `Backbone`.
        pretrained: start from the weights that timm has for the network, which it downloads; else
            they are random.
        download_dir: where they go; None: where the Hugging Face client keeps its own.

    Returns:
        The backbone; from its `architecture`, plain values, `build_backbone(**values)` makes it again.

    Raises:
        UserError: the name or the stem is unknown, the stem is not for this network, the network
            cannot take such images, or there are no such weights to be had.
    """
    if stem is not None:
        require_known("stem", stem, STEMS)
    if name in CIFAR_RESNETS:
        net: nn.Module = CifarResNet(*CIFAR_RESNETS[name], channels)
    else:
        net = _timm(name, image_size, channels)
    stem = stem or _natural_stem(net, image_size)
    _check_stem(net, name, stem)
    if pretrained:
        net = _pretrained(name, image_size, channels, stem, download_dir)
    if stem in ("small", "strided"):
        _make_stem_small(net, stride=1 if stem == "small" else 2)
    try:
        backbone = Backbone(net, image_size, channels=channels, normalization=normalization)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    backbone.architecture = {
        "name": name,
        "image_size": image_size,
        "channels": channels,
        "stem": stem,
        "normalization": normalization,
    }
    return backbone


def _timm(name: str, image_size: int, channels: int) -> nn.Module:
    import timm

    if name.startswith("<"):  # as a run's settings have it
        raise UserError(
            f"the backbone was a network of your own, {name}: pass it again to byol.pretrain in Python"
        )
    if not timm.is_model(name):
        names = [*CIFAR_RESNETS, *timm.list_models()]
        raise UserError(
            f"unknown backbone '{name}'.{closest(name, names)} "
            f"Any timm name will do, or one of {', '.join(CIFAR_RESNETS)}."
        )
    try:
        return cast(nn.Module, timm.create_model(name, **_timm_settings(name, image_size, channels)))
    except Exception as error:  # whatever a network says to sizes that do not suit it
        raise UserError(
            f"backbone '{name}' cannot take images of side {image_size}: {first_line(error)}"
        ) from error


def _timm_settings(name: str, image_size: int, channels: int) -> dict[str, Any]:
    import timm

    settings: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    if timm.get_pretrained_cfg(name).fixed_input_size:  # ViT, Swin and their kin
        settings["img_size"] = image_size
    return settings


def _pretrained(
    name: str, image_size: int, channels: int, stem: str | None, download_dir: str | None
) -> nn.Module:
    """Build a network again with timm's own weights, which it fits to the channels and the size."""
    import timm

    if name in CIFAR_RESNETS or not timm.get_pretrained_cfg(name).has_weights:
        raise UserError(f"timm has no weights for {name}: give a file with --backbone-weights, or none")
    if stem in ("small", "strided"):
        raise UserError(
            f"timm's weights for {name} belong to its standard stem: the first convolution of the {stem} "
            "stem is another one. Give --stem standard"
        )
    try:
        settings = _timm_settings(name, image_size, channels)
        return cast(nn.Module, timm.create_model(name, pretrained=True, cache_dir=download_dir, **settings))
    except Exception as error:  # no connection, most likely, in the words of one of several libraries
        raise UserError(
            f"timm's weights for {name} cannot be had: {first_line(error).rstrip('.')}. Without a "
            "connection, fetch them elsewhere and give the file with --backbone-weights"
        ) from error


def classifier_layers(net: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers with which a timm network would classify; none for others."""
    names = (getattr(net, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _natural_stem(net: nn.Module, image_size: int) -> str | None:
    of_large_images = "strided" if isinstance(net, CifarResNet) else "standard" if _is_resnet(net) else None
    return "small" if of_large_images and image_size < 112 else of_large_images


def _check_stem(net: nn.Module, name: str, stem: str | None) -> None:
    if stem == "standard" and isinstance(net, CifarResNet):
        raise UserError(f"stem 'standard' is for the ResNets of ImageNet: {name} takes small or strided")
    if stem is not None and not isinstance(net, CifarResNet) and not _is_resnet(net):
        raise UserError(
            f"stem '{stem}' is for ResNets: {name} has a stem of its own (the config.yaml of a run names its "
            "stem: leave that line out)"
        )


def _is_resnet(net: nn.Module) -> bool:
    from timm.models.resnet import ResNet

    return isinstance(net, ResNet)


def _make_stem_small(net: nn.Module, stride: int) -> None:
    """Replace a ResNet's stem for small images, as everyone does on CIFAR-10 (SimCLR, appendix B.9)."""
    convolution = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    owner, attribute = next(
        (module, name)
        for module in net.modules()
        for name, child in module.named_children()
        if child is convolution
    )
    small = nn.Conv2d(convolution.in_channels, convolution.out_channels, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    setattr(owner, attribute, small)
    net.maxpool = nn.Identity()
