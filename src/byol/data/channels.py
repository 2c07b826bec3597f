"""Grey to colour and back, for whole batches of bytes."""

import torch
from torch import Tensor

from byol.errors import UserError

_CHUNK = 1024  # images turned grey at a time: the sums need four times the memory of the bytes


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Return uint8 [N,C,H,W] images with `channels` channels.

    Grey is repeated to make colour; colour becomes grey by the ITU-R 601 weights, rounded exactly as
    PIL's mode "L" does. Images that already fit come back as they are.

    Raises:
        UserError: no such conversion exists (five channels into three, say).
    """
    present = images.shape[1]
    if present == channels:
        return images
    if (present, channels) == (1, 3):
        return images.repeat(1, 3, 1, 1)  # [N,1,H,W] -> [N,3,H,W]
    if (present, channels) == (3, 1):
        return torch.cat([_grey(chunk) for chunk in images.split(_CHUNK)])  # [N,3,H,W] -> [N,1,H,W]
    raise UserError(
        f"images of {present} channels cannot become {channels}; only 1 to 3 and 3 to 1 are known: "
        f"leave --channels out or set it to {present}"
    )


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.to(torch.int32).unbind(1)
    # PIL's own fixed-point weights (299, 587, 114 thousandths of 65536) and rounding.
    grey = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
    return grey.to(torch.uint8).unsqueeze(1)
