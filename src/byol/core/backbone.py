"""Backbones: any module as a map from images to vectors [B,D]."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from byol.augment.evaluation import Preprocess
from byol.config import Normalization
from byol.core.group_normalization import layers_before_batch_norms, use_group_normalization
from byol.core.pooling import pooled
from byol.errors import UserError, closest, first_line, unknown

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
        architecture: what `build_backbone` makes it again from; None for a network of the user's own.

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
        self.architecture: dict[str, Any] | None = None
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
                f"(image_size {self.image_size}, channels {self.channels}): {first_line(error)}"
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
