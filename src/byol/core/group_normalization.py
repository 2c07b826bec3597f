"""Networks without batch statistics: group normalisation and standardised weights (arXiv 2010.10241)."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from byol.core.weight_standardization import standardize_weights

_GROUPS = 16


def use_group_normalization(net: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Put group norms in place of all batch norms below `net`, and standardise weights of `layers`.

    The network is changed in place. Its parameters stay the same objects under the same names; the
    buffers of running statistics are gone.

    The abstract of the paper names neither the number of groups nor the layers with standardised
    weights. Here: 16 groups, or the largest divisor of the channels below that leaves at least two
    channels to a group, for vectors at least eight: few values normalised by themselves say little.

    Args:
        net: any network; one without batch norms gets no group norms.
        layers: which layers to standardise: those of `layers_before_batch_norms`, whose scale the
            norm undoes, or all of a head.
    """
    for layer in list(layers):
        standardize_weights(layer)
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, _group_norm(child))


def layers_before_batch_norms(net: nn.Module, run: Callable[[], Any]) -> list[nn.Module]:
    """Return the modules whose output goes straight into a batch norm of `net` while `run` runs it."""
    outputs: list[tuple[Tensor, nn.Module]] = []
    found: list[nn.Module] = []

    def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
        outputs.append((output, layer))  # the tensor itself: a freed one's id may come again

    def look_up(norm: nn.Module, inputs: Any) -> None:
        found.extend(layer for output, layer in outputs if output is inputs[0])

    handles = []
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            handles.append(module.register_forward_pre_hook(look_up))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_hook(keep))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _group_norm(norm: _BatchNorm) -> nn.GroupNorm:
    """Return a group norm with a batch norm's parameters, mode and, where it has one, activation."""
    if hasattr(norm, "act"):  # as timm's do
        from timm.layers import GroupNormAct

        group_norm: nn.GroupNorm = GroupNormAct(norm.num_features, _groups(norm), norm.eps, affine=False)
        group_norm.drop, group_norm.act = norm.drop, norm.act
    else:
        group_norm = nn.GroupNorm(_groups(norm), norm.num_features, norm.eps, affine=False)
    group_norm.affine = norm.affine
    group_norm.weight, group_norm.bias = norm.weight, norm.bias
    return group_norm.train(norm.training)


def _groups(norm: _BatchNorm) -> int:
    smallest = 8 if isinstance(norm, nn.BatchNorm1d) else 2
    most = max(1, min(_GROUPS, norm.num_features // smallest))
    return next(groups for groups in range(most, 0, -1) if norm.num_features % groups == 0)
