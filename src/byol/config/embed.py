"""The settings of `byol embed`."""

from dataclasses import dataclass
from typing import Literal

from byol.config.choices import InputNormalization, Precision, PresetName, Stem, at_least


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Settings of `byol embed`."""

    target: str
    """Run directory, bundle, or a file with a state dict (.safetensors, .pt, .pth)."""
    out: str
    """File to write: .parquet (id, label, vector), .npy or .safetensors."""
    data: str | None = None
    """Images, as for pretrain. Default: the run's own."""
    split: Literal["train", "test", "unlabeled", "all"] = "train"
    """Part of the data. all: each part there is, its name before the ids of its images."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about an unreadable image: stop, or leave it out and tell its name."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision = "fp32"
    """fp32, or bf16: the network runs so (weights and what comes out stay fp32). Faster where the processor
    has such arithmetic; vectors differ by rounding."""
    num_workers: int | None = None
    """Processes that decode images, of data that does not stay in memory. Default: as pretrain."""
    data_dir: str | None = None
    """Where downloads go. Default: where the run's went, else ./datasets."""
    backbone: str | None = None
    """Of a weights file: the name of its network, as for pretrain."""
    image_size: int | None = None
    """Of a weights file: side of the images in pixels. Default, here and below: as pretrain for the data."""
    channels: int | None = None
    """Of a weights file: channels of the images, 1 or 3."""
    stem: Stem | None = None
    """Of a weights file: first layers of its ResNet."""
    preset: PresetName | None = None
    """Of a weights file: augmentations of its training, which decide how images are preprocessed."""
    normalize: InputNormalization | None = None
    """Of a weights file: how its training normalised pixels, as for pretrain. Default: imagenet."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        at_least(self, 1, "image_size", "channels")
        at_least(self, 0, "num_workers")
