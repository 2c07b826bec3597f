"""Boxes of crops, as fractions of the source image."""

import torch
from torch import Tensor


def normalized_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Turn integer crop boxes (top, left, height, width) [B,4] into (x0, y0, x1, y1) in [0,1]."""
    top, left, box_height, box_width = boxes.unbind(-1)
    corners = torch.stack([left, top, left + box_width, top + box_height], dim=-1)  # [B,4]
    return corners / corners.new_tensor([width, height, width, height], dtype=torch.float32)
