"""Backbones: any module, or any timm name, as a map from images to vectors [B,D]."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast, get_args

import torch
from torch import Tensor, nn

from byol.augment.evaluation import Preprocess
from byol.config import Normalization
from byol.core.cifar_resnet import CIFAR_RESNETS, CifarResNet
from byol.core.group_normalization import layers_before_batch_norms, use_group_normalization
from byol.core.pooling import pooled
from byol.errors import UserError, closest, unknown

Result = TypeVar("Result")


class Backbone(nn.Module):
    """A network whose representation [B,D] is its output, or the pooled output of one of its layers.

    Four-dimensional representations are averaged over space (channels-last layouts are recognised
    by comparing their sides with the image's), three-dimensional ones over their patch tokens.

    Args:
        net: any module that takes [B,C,H,W].
        image_size: side of the images that it will see, in pixels.
        hidden_layer: dotted name of a sub-module, index among the children, or None for the
            network's own output.
        channels: of the images; None: those of the network's first convolution.
        preprocess: the fixed preprocessing that belongs to the weights, where known.
        normalization: "batch" leaves the network as it is; "group" changes it in place, from batch
            norms to group norms after standardised weights (arXiv 2010.10241; see
            `use_group_normalization`).

    Attributes:
        num_features: width D, measured by a forward pass in eval mode.
        unreached: names of the parameters of `net` that the representation does not depend on.
        origin: where loaded weights come from (method, data, epoch, seed); empty otherwise.

    Raises:
        UserError: there is no such layer, the network cannot take such images, or the normalisation
            is unknown.
    """

    def __init__(
        self,
        net: nn.Module,
        image_size: int,
        hidden_layer: str | int | None = None,
        channels: int | None = None,
        preprocess: Preprocess | None = None,
        normalization: Normalization = "batch",
    ) -> None:
        super().__init__()
        self.net = net
        self.image_size = image_size
        self.channels = channels or first_convolution_channels(net)
        self.hidden_layer = hidden_layer
        self.preprocess = preprocess
        self.normalization = normalization
        self.origin: dict[str, Any] = {}
        if normalization not in get_args(Normalization):
            raise unknown("normalization", normalization, get_args(Normalization))
        if normalization == "group":  # before the hook: the chosen layer may be a norm
            use_group_normalization(net, self._on_zeros(self._layers_before_batch_norms))
        self._capture: _Capture | None = None
        if hidden_layer is not None:
            self._capture = _Capture()
            find_layer(net, hidden_layer).register_forward_hook(self._capture)
        self.num_features, self.unreached = self._on_zeros(self._measure)

    def forward(self, images: Tensor) -> Tensor:
        """Return representations [B,D] of images [B,C,H,W]."""
        output = self.net(images) if self._capture is None else self._capture.during(self.net, images)
        if not isinstance(output, Tensor):
            raise UserError(self._unusable(output))
        return pooled(output, images, self.net)

    def _on_zeros(self, examine: Callable[[Tensor], Result]) -> Result:
        """Run a function that runs the network, in eval mode: no running statistic moves."""
        like = next(self.net.parameters(), torch.zeros(()))
        shape = (2, self.channels, self.image_size, self.image_size)
        try:
            with _undisturbed(self.net), torch.enable_grad():
                return examine(torch.zeros(shape, device=like.device, dtype=like.dtype))
        except UserError:
            raise
        except Exception as error:  # whatever a network says to images that do not suit it
            raise UserError(
                f"the backbone cannot take {self.channels} x {self.image_size} x {self.image_size} images "
                f"(image_size {self.image_size}, channels {self.channels}): {_first_line(error)}"
            ) from error

    def _measure(self, images: Tensor) -> tuple[int, list[str]]:
        """Return the width of the representation, and the names of the parameters that it does not reach."""
        output = self(images)
        parameters = _floating_parameters(self.net)
        gradients = _gradients(output, list(parameters.values()))
        unreached = [name for name, grad in zip(parameters, gradients, strict=True) if grad is None]
        return output.shape[1], unreached

    def _layers_before_batch_norms(self, images: Tensor) -> list[nn.Module]:
        return layers_before_batch_norms(self.net, lambda: self.net(images))

    def _unusable(self, output: Any) -> str:
        if self.hidden_layer is None:
            return (
                f"the network gives a {type(output).__name__}, not a tensor: choose a hidden layer that does"
            )
        layer = f"hidden layer {self.hidden_layer!r}"
        if output is None:
            return f"{layer} was not reached by the forward pass: choose another one"
        return f"{layer} gives a {type(output).__name__}, not a tensor: choose another one"


class _Capture:
    """A forward hook that keeps one output, only while asked to; it is copied along with its network."""

    def __init__(self) -> None:
        self.active = False
        self.output: Any = None

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.active:
            # Later layers may work in place: EfficientNet's dropout changes what it was given.
            self.output = output.clone() if isinstance(output, Tensor) else output

    def during(self, net: nn.Module, images: Tensor) -> Any:
        """Run a network and return the output, or None where the layer was not reached."""
        self.active = True
        try:
            net(images)
            return self.output
        finally:
            self.active, self.output = False, None


@contextmanager
def _undisturbed(net: nn.Module) -> Iterator[None]:
    """Put a network in eval mode with gradients for all parameters; then give it its own settings back.

    Parameters that are frozen now may be thawed later: whether they are reached is found out for them, too.
    """
    modes = {module: module.training for module in net.modules()}
    frozen = [p for p in _floating_parameters(net).values() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter in frozen:
            parameter.requires_grad_(False)


def _floating_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in net.named_parameters() if p.is_floating_point()}


def _gradients(output: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    if not parameters or not output.requires_grad:
        return (None,) * len(parameters)
    return torch.autograd.grad(output.sum(), parameters, allow_unused=True)


def _first_line(error: Exception) -> str:
    """Return what to tell of an error: its first line, or its kind where it has no words."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def find_layer(net: nn.Module, layer: str | int) -> nn.Module:
    """Return the sub-module with this dotted name, or the child with this index (-1 is the last).

    Raises:
        UserError: none has; the message gives the closest name and the candidates.
    """
    if isinstance(layer, int):
        children = list(net.children())
        if not -len(children) <= layer < len(children):
            raise UserError(f"hidden layer {layer}: the network has {len(children)} children")
        return children[layer]
    modules = dict(net.named_modules())
    if layer and layer in modules:
        return modules[layer]
    top = [name for name in modules if name and "." not in name]
    raise UserError(
        f"the network has no layer '{layer}'.{closest(layer, modules)} "
        f"Layers: {', '.join(top)} (and dotted names inside them)."
    )


def first_convolution_channels(net: nn.Module) -> int:
    """Return the input channels of the first convolution, or 3 where there is none."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3


STEMS = ("small", "strided", "standard")


def build_backbone(
    name: str,
    image_size: int,
    channels: int = 3,
    stem: str | None = None,
    *,
    normalization: Normalization = "batch",
    pretrained: bool = False,
) -> tuple[Backbone, dict[str, Any]]:
    """Build a backbone by name.

    Args:
        name: any timm name, or one of `CIFAR_RESNETS`.
        image_size: side of the images in pixels; ViT and Swin are built for it.
        channels: of the images.
        stem: for ResNets, "small" (3x3 stride 1, no max-pool), "strided" (3x3 stride 2, no
            max-pool) or "standard" (7x7 stride 2, max-pool; not for `CIFAR_RESNETS`); None: small
            below 112 pixels.
        normalization: as of `Backbone`.
        pretrained: start from the weights that timm has for the network, which it downloads; else
            they are random.

    Returns:
        The backbone, and the plain values from which `build_backbone(**values)` makes it again.

    Raises:
        UserError: the name or the stem is unknown, the stem is not for this network, the network
            cannot take such images, or there are no such weights to be had.
    """
    if stem is not None and stem not in STEMS:
        raise unknown("stem", stem, STEMS)
    if name in CIFAR_RESNETS:
        net: nn.Module = CifarResNet(*CIFAR_RESNETS[name], channels)
    else:
        net = _timm(name, image_size, channels)
    stem = stem or _natural_stem(net, image_size)
    _check_stem(net, name, stem)
    if pretrained:
        net = _pretrained(name, image_size, channels, stem)
    if stem in ("small", "strided"):
        _make_stem_small(net, stride=1 if stem == "small" else 2)
    architecture = {
        "name": name,
        "image_size": image_size,
        "channels": channels,
        "stem": stem,
        "normalization": normalization,
    }
    try:
        return Backbone(net, image_size, channels=channels, normalization=normalization), architecture
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _timm(name: str, image_size: int, channels: int) -> nn.Module:
    import timm

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
            f"backbone '{name}' cannot take images of side {image_size}: {_first_line(error)}"
        ) from error


def _timm_settings(name: str, image_size: int, channels: int) -> dict[str, Any]:
    import timm

    settings: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    if timm.get_pretrained_cfg(name).fixed_input_size:  # ViT, Swin and their kin
        settings["img_size"] = image_size
    return settings


def _pretrained(name: str, image_size: int, channels: int, stem: str | None) -> nn.Module:
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
        return cast(nn.Module, timm.create_model(name, pretrained=True, **settings))
    except Exception as error:  # no connection, most likely, in the words of one of several libraries
        raise UserError(
            f"timm's weights for {name} cannot be had: {_first_line(error).rstrip('.')}. Without a "
            "connection, fetch them elsewhere and give the file with --backbone-weights"
        ) from error


def classifier_layers(net: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers with which a timm network would classify; none for others."""
    names = (getattr(net, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _natural_stem(net: nn.Module, image_size: int) -> str | None:
    if isinstance(net, CifarResNet) or (_is_resnet(net) and image_size < 112):
        return "small"
    return "standard" if _is_resnet(net) else None


def _check_stem(net: nn.Module, name: str, stem: str | None) -> None:
    if stem == "standard" and isinstance(net, CifarResNet):
        raise UserError(f"stem 'standard' is for the ResNets of ImageNet: {name} takes small or strided")
    if stem is not None and not isinstance(net, CifarResNet) and not _is_resnet(net):
        raise UserError(f"stem '{stem}' is for ResNets: {name} has a stem of its own")


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
