"""Batch norms whose statistics are those of all processes' batches together."""

from torch import nn


def synchronize_batch_norms(module: nn.Module) -> None:
    """Turn every batch norm inside a module into one that computes over all processes, in place.

    By timm's conversion: many of its networks have norms that contain the activation behind them, which
    torch's own conversion loses. Forward hooks stay, which it would lose: a norm may be the layer whose
    output is taken.
    """
    from timm.layers import convert_sync_batchnorm

    hooks = {name: part._forward_hooks for name, part in module.named_modules() if part._forward_hooks}
    convert_sync_batchnorm(module)
    for name, kept in hooks.items():
        module.get_submodule(name)._forward_hooks.update(kept)
