"""Boxes of crops, as fractions of the source image."""

import torch
from torch import Tensor


def normalized_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Turn integer crop boxes (top, left, height, width) [B,4] into (x0, y0, x1, y1) in [0,1]."""
    top, left, box_height, box_width = boxes.float().unbind(-1)
    # By plain numbers: a GPU's host would wait for a tensor of them to arrive there.
    x0, x1 = left / width, (left + box_width) / width
    y0, y1 = top / height, (top + box_height) / height
    return torch.stack([x0, y0, x1, y1], dim=-1)  # [B,4]
