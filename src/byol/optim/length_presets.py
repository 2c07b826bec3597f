"""What goes with the length of training: the presets of the official code (`configs/byol.py`)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LengthPreset:
    """Learning rate per 256 images, weight decay and first tau, which move together."""

    base_lr: float
    weight_decay: float
    tau: float


LENGTH_PRESETS = {
    40: LengthPreset(0.45, 1e-6, 0.97),
    100: LengthPreset(0.45, 1e-6, 0.99),
    300: LengthPreset(0.30, 1e-6, 0.99),
    1000: LengthPreset(0.20, 1.5e-6, 0.996),
}
"""By epochs; published for these four lengths."""
PIXEL_PRESET = LengthPreset(1.0, 1e-5, 0.99)
"""PixPro's, of 100 and 400 epochs (`tools/pixpro_base_r50_{100,400}ep.sh` of its code)."""


def preset_for(epochs: float) -> LengthPreset:
    """Return the published preset of this many epochs, or that of the nearest published length.

    Nearest by ratio: 200 epochs lie nearer to 300 than to 100.
    """
    nearest = min(LENGTH_PRESETS, key=lambda length: max(length / epochs, epochs / length))
    return LENGTH_PRESETS[nearest]
