"""From a layer's output in any layout to one vector per image, or to one at each place of it."""

import math

from torch import Tensor, nn


def pooled(output: Tensor, images: Tensor, net: nn.Module) -> Tensor:
    """Average [B,D,h,w] or [B,h,w,D] over space and [B,T,D] over patch tokens; keep [B,D]."""
    if output.ndim == 4:
        return output.mean(dim=(1, 2) if _channels_last(output, images) else (2, 3))  # [B,D]
    if output.ndim == 3:
        return output[:, _prefix_tokens(output, net) :].mean(dim=1)  # [B,D]
    return output.reshape(len(output), -1)


def spatial(output: Tensor, images: Tensor, net: nn.Module) -> Tensor | None:
    """Return a map [B,D,h,w] of [B,D,h,w], [B,h,w,D] or [B,T,D], whose patch tokens make a grid shaped like
    the images; None where the output is no map."""
    if output.ndim == 4:
        return output.permute(0, 3, 1, 2) if _channels_last(output, images) else output  # [B,D,h,w]
    if output.ndim != 3:
        return None
    patches = output[:, _prefix_tokens(output, net) :]  # [B,h x w,D]
    height, width = images.shape[-2:]
    rows = round(math.sqrt(patches.shape[1] * height / width))
    if rows == 0 or patches.shape[1] % rows:
        return None
    return patches.transpose(1, 2).unflatten(2, (rows, -1))  # [B,D,h,w]


def _channels_last(output: Tensor, images: Tensor) -> bool:
    """Say whether the last dimension holds the channels: when the two before it are shaped more like
    the images than the last two are."""
    _, a, b, c = output.shape
    height, width = images.shape[-2:]
    return _mismatch(a * width, b * height) < _mismatch(b * width, c * height)


def _mismatch(first: int, second: int) -> float:
    return max(first, second) / min(first, second)


def _prefix_tokens(output: Tensor, net: nn.Module) -> int:
    """Return how many tokens stand before the patches: the network's word, else 1 where the rest
    makes a square."""
    told = getattr(net, "num_prefix_tokens", None)
    if isinstance(told, int):
        return told
    tokens = output.shape[1]
    is_square = math.isqrt(tokens) ** 2 == tokens
    return 1 if not is_square and math.isqrt(tokens - 1) ** 2 == tokens - 1 else 0
