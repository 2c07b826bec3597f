"""Outputs of layers inside a network, taken while it runs."""

from typing import Any

from torch import Tensor, nn

from byol.core.pooling import spatial
from byol.errors import UserError


class Capture:
    """Keeps what a layer gives, where `active`; it is copied along with its network."""

    def __init__(self, layer: nn.Module) -> None:
        self.active = False
        self.output: Any = None
        layer.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Be called by the layer, as its hook."""
        if self.active:
            # Later layers may work in place: EfficientNet's dropout changes what it was given.
            self.output = output.clone() if isinstance(output, Tensor) else output

    def forget(self) -> None:
        """Let the output go, and keep none until `active` is set again."""
        self.active, self.output = False, None


def last_spatial_layer(net: nn.Module, images: Tensor) -> nn.Module:
    """Return the layer that gives the last map of a forward pass of images [B,C,H,W]: more than one place,
    with a vector at each, in any layout.

    Raises:
        UserError: there is none.
    """
    found: list[nn.Module] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and len(output) == len(images) and output.ndim in (3, 4):
            grid = spatial(output, images, net)
            if grid is not None and grid.shape[2] * grid.shape[3] > 1:
                found.append(module)

    hooks = [module.register_forward_hook(note) for module in net.modules()]
    try:
        net(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UserError(
            f"no layer of the network gives a map of more than one place at image size {images.shape[-1]}: "
            "give larger images"
        )
    return found[-1]
