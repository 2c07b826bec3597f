"""Batch norms whose statistics are those of all processes' batches together."""

from torch import nn


def synchronize_batch_norms(module: nn.Module) -> None:
    """Turn every batch norm inside a module into one that computes over all processes, in place.

    By timm's conversion: many of its networks have norms that contain the activation behind them, which
    torch's own conversion loses.
    """
    from timm.layers import convert_sync_batchnorm

    convert_sync_batchnorm(module)
