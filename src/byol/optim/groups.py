"""Which parameters are decayed and adapted, and which are not."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(
    module: nn.Module, named_parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Split parameters into those that are decayed and adapted, and biases and norms, which are not.

    BYOL excludes biases and batch normalisation from both weight decay and LARS adaptation
    (section 3.3). AdamW and SGD ignore `adapt`.

    Args:
        module: owner of the parameters.
        named_parameters: names in `module` and parameters.
        weight_decay: of the first group.

    Returns:
        Two groups with explicit `weight_decay` and `adapt`, less a group that would be empty.
    """
    excluded = _norm_and_bias_names(module)
    groups: list[dict[str, Any]] = [
        {"name": "weights", "params": [], "weight_decay": weight_decay, "adapt": True},
        {"name": "biases and norms", "params": [], "weight_decay": 0.0, "adapt": False},
    ]
    for name, parameter in named_parameters:
        groups[name in excluded]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def _norm_and_bias_names(module: nn.Module) -> set[str]:
    names = set()
    for prefix, child in module.named_modules():
        for name, _ in child.named_parameters(recurse=False):
            if name.endswith("bias") or isinstance(child, _NORMS):
                names.add(f"{prefix}.{name}" if prefix else name)
    return names
