"""Backbones: any module as a function from images to vectors [B,D], or to feature maps [B,D,h,w]."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from byol.augment.evaluation import Preprocess
from byol.config import Normalization, Precision
from byol.core.capture import Capture, last_spatial_layer
from byol.core.group_normalization import layers_before_batch_norms, use_group_normalization
from byol.core.pooling import pooled, spatial
from byol.errors import UserError, closest, first_line, require_known

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
        feature_layer: whose output is the feature map, named as `hidden_layer`; None: the last layer whose
            output is still a map.

    Attributes:
        num_features: width D, measured by a forward pass in eval mode.
        takes_channels_last: whether the network is given images laid out so. One that flattens maps with
            `view` cannot take them, which is found out here and in `lay_out`, in eval mode; set it to False
            where it shows later.
        precision: "fp32", or "bf16": the network runs under autocast and what comes out is float32. For
            evaluation; in pretraining the whole step has a precision.
        unreached: names of the parameters of `net` that the representation does not depend on.
        origin: where loaded weights come from (method, data, epoch, seed); empty otherwise.
        architecture: what `build_backbone` makes it again from; None for a network of the user's own.

    Raises:
        UserError: there is no such layer, the network cannot take such images, or the normalisation
            is unknown.
    """

    precision: Precision = "fp32"
    takes_channels_last = True

    def __init__(
        self,
        net: nn.Module,
        image_size: int,
        hidden_layer: str | int | None = None,
        channels: int | None = None,
        preprocess: Preprocess | None = None,
        normalization: Normalization = "batch",
        feature_layer: str | int | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.image_size = image_size
        self.channels = channels or first_convolution_channels(net)
        self.hidden_layer = hidden_layer
        self.feature_layer = feature_layer
        self.preprocess = preprocess
        self.normalization = normalization
        self.origin: dict[str, Any] = {}
        self.architecture: dict[str, Any] | None = None
        require_known("normalization", normalization, get_args(Normalization))
        if normalization == "group":  # before the hook: the chosen layer may be a norm
            use_group_normalization(net, self._on_zeros(self._layers_before_batch_norms))
        self._hidden = None if hidden_layer is None else Capture(find_layer(net, hidden_layer))
        self._features: Capture | None = None
        self.num_features, self.unreached = self._measured_in_a_layout()
        if feature_layer is not None:
            self.prepare_feature_map()

    def forward(self, images: Tensor) -> Tensor:
        """Return representations [B,D] of images [B,C,H,W]."""
        return self._pooled(self._run(images, self._hidden)[0], images)

    def feature_map(self, images: Tensor) -> Tensor:
        """Return feature maps [B,D,h,w] of images [B,C,H,W]; their width may differ from `num_features`.

        Channels come first whatever the layout of the layer; patch tokens make a grid. The layer is
        `feature_layer` or, where that is None, the last one whose output is still a map.

        Raises:
            UserError: the network has no such layer.
        """
        self.prepare_feature_map()
        return self._spatial(self._run(images, self._features)[0], images)

    def map_and_representation(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return `feature_map` [B,D,h,w] and representations [B,D'] of images, of one forward pass."""
        self.prepare_feature_map()
        features, hidden = self._run(images, self._features, self._hidden)
        return self._spatial(features, images), self._pooled(hidden, images)

    def prepare_feature_map(self) -> None:
        """Find the layer of the feature map, once; calling `feature_map` does so, too.

        Raises:
            UserError: the network has no such layer, or what it gives is no map.
        """
        if self._features is not None:
            return
        if self.feature_layer is None:
            layer = self._on_zeros(lambda images: last_spatial_layer(self.net, images))
        else:
            layer = find_layer(self.net, self.feature_layer)
        self._features = Capture(layer)
        self._on_zeros(self.feature_map)

    def measured(self, function: Callable[[Tensor], Tensor]) -> tuple[int, list[str]]:
        """Return the width of what a function of this backbone's gives, and the names of the parameters of
        `net` that it does not depend on. No running statistic moves."""
        return self._on_zeros(lambda images: self._measure(function(images)))

    def check_takes(self, image_size: int) -> None:
        """Try images of another side.

        Raises:
            UserError: the network cannot take them, gives representations of another width, or feature maps
                (where they have been asked for) of one place.
        """

        def examine(images: Tensor) -> None:
            width = self(images).shape[1]
            if width != self.num_features:
                raise UserError(f"the representation's width would be {width}, not {self.num_features}")
            if self._features is not None and self.feature_map(images)[0, 0].numel() == 1:
                raise UserError("the feature map would have a single place")

        self._on_zeros(examine, image_size)

    def runs(self) -> bool:
        """Say whether the network can be run in eval mode, with its weights as they are laid out now."""
        try:
            self._on_zeros(self)
        except UserError:
            return False
        return True

    def _measured_in_a_layout(self) -> tuple[int, list[str]]:
        """Return what `measured` does, of contiguous images where others will not do."""
        with suppress(UserError):
            return self.measured(self)
        self.takes_channels_last = False
        return self.measured(self)

    def _run(self, images: Tensor, *captures: Capture | None) -> list[Any]:
        """Run the network; return what each capture saw, or the network's own output for None."""
        begun = [capture for capture in captures if capture is not None]
        try:
            for capture in begun:
                capture.active = True
            output = self._computed(images)
            found = [output if capture is None else capture.output for capture in captures]
            return [self._widened(each) for each in found]
        finally:
            for capture in begun:
                capture.forget()

    def _computed(self, images: Tensor) -> Any:
        if self.precision != "bf16":
            return self.net(self._laid_out(images))  # under the caller's autocast, if any
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.net(self._laid_out(images))

    def _widened(self, output: Any) -> Any:
        return output.float() if self.precision == "bf16" and isinstance(output, Tensor) else output

    def _laid_out(self, images: Tensor) -> Tensor:
        """Return images as convolutions like them: 1.4x faster on a CPU measured, and on tensor cores."""
        return images.contiguous(
            memory_format=torch.channels_last if self.takes_channels_last else torch.contiguous_format
        )

    def _pooled(self, output: Any, images: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise UserError(self._unusable(output))
        return pooled(output, images, self.net)

    def _spatial(self, output: Any, images: Tensor) -> Tensor:
        found = spatial(output, images, self.net) if isinstance(output, Tensor) else None
        if found is None:
            shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"hidden layer {self.feature_layer!r} gives no map but {shape}: choose a layer before the "
                "pooling, such as layer4 of a ResNet"
            )
        return found

    def _on_zeros(self, examine: Callable[[Tensor], Result], image_size: int | None = None) -> Result:
        """Run a function that runs the network, in eval mode: no running statistic moves."""
        like = next(self.net.parameters(), torch.zeros(()))
        side = image_size or self.image_size
        shape = (2, self.channels, side, side)
        try:
            with _undisturbed(self.net), torch.enable_grad():
                return examine(torch.zeros(shape, device=like.device, dtype=like.dtype))
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a network says to images that do not suit it
            raise UserError(
                f"the backbone cannot take {self.channels} x {side} x {side} images "
                f"(image_size {side}, channels {self.channels}): {first_line(error)}"
            ) from error

    def _measure(self, output: Tensor) -> tuple[int, list[str]]:
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


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode, and give every sub-module its own mode back afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def _undisturbed(net: nn.Module) -> Iterator[None]:
    """Put a network in eval mode with gradients for all parameters; then give it its own settings back.

    Parameters that are frozen now may be thawed later: whether they are reached is found out for them, too.
    """
    frozen = [p for p in _floating_parameters(net).values() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with evaluating(net):
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _floating_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in net.named_parameters() if p.is_floating_point()}


def _gradients(output: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    if not parameters or not output.requires_grad:
        return (None,) * len(parameters)
    return torch.autograd.grad(output.sum(), parameters, allow_unused=True)


def lay_out(network: nn.Module) -> None:
    """Lay the weights of a network out as its convolutions like them, where its backbones can take that.

    A convolution gives channels-last maps where its images or its weights are so: images of one channel are
    neither, so only weights that are laid out tell.
    """
    backbones = [part for part in network.modules() if isinstance(part, Backbone)]
    if not all(backbone.takes_channels_last for backbone in backbones):
        return
    network.to(memory_format=torch.channels_last)
    if not all(backbone.runs() for backbone in backbones):
        network.to(memory_format=torch.contiguous_format)
        for backbone in backbones:
            backbone.takes_channels_last = False


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
