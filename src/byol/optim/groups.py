"""Which parameters are decayed and adapted, and which are not."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn


def parameter_groups(
    module: nn.Module, named_parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Split parameters into those that are decayed and adapted, and biases and norms, which are not.

    BYOL excludes biases and batch normalisation from both weight decay and LARS adaptation
    (section 3.3). AdamW and SGD ignore `adapt`.

    Args:
        module: owner of the parameters.
        named_parameters: which of them to group, with names.
        weight_decay: of the first group.

    Returns:
        Two groups with explicit `weight_decay` and `adapt`, less a group that would be empty.
    """
    excluded = {id(parameter) for parameter in _norms_and_biases(module)}
    groups: list[dict[str, Any]] = [
        {"name": "weights", "params": [], "weight_decay": weight_decay, "adapt": True},
        {"name": "biases and norms", "params": [], "weight_decay": 0.0, "adapt": False},
    ]
    for _, parameter in named_parameters:
        groups[id(parameter) in excluded]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def _norms_and_biases(module: nn.Module) -> Iterator[nn.Parameter]:
    for child in module.modules():
        is_norm = _is_norm(child)
        for name, parameter in child.named_parameters(recurse=False):
            if is_norm or name.endswith("bias"):
                yield parameter


def _is_norm(module: nn.Module) -> bool:
    """Go by the name of the class or of one it derives from: libraries bring norms of their own.

    The official code goes by names, too.
    """
    return any("norm" in kind.__name__.lower() for kind in type(module).__mro__)
