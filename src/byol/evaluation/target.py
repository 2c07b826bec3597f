"""What is evaluated: a trained backbone and what is known about it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from byol.augment.evaluation import Preprocess
from byol.bundle import load_backbone
from byol.core.backbone import Backbone
from byol.data.source import Source, check_named, open_source, resolved_spec
from byol.data.splits import HOLDOUT
from byol.errors import UserError, first_line
from byol.rundir import RunDirectory
from byol.types import ImageSet

Data = str | Path | Dataset[Any] | Tensor


@dataclass(frozen=True)
class Target:
    """A trained backbone and where it comes from."""

    backbone: Backbone
    preprocess: Preprocess
    run: RunDirectory | None
    """None for a bundle outside a run, a weights file and a saved network."""
    config: dict[str, Any]
    """The run's settings; empty for the others."""
    described: dict[str, Any] = field(default_factory=dict)
    """What results say of a weights file: its path, and its network's name; of a saved network: its path, and
    the data it learned from."""

    @property
    def method(self) -> str:
        """byol, simsiam, ..."""
        return str(self.config.get("method") or self.backbone.origin.get("method") or "unknown")

    @property
    def seed(self) -> int | None:
        """Of the pretraining, where known."""
        return self.backbone.origin.get("seed", self.config.get("seed"))

    @property
    def epoch(self) -> float | None:
        """Of the weights, where known; an int where it is a whole number."""
        epoch = self.backbone.origin.get("epoch")
        return int(epoch) if epoch is not None and epoch == int(epoch) else epoch

    @property
    def cache(self) -> Path | None:
        """Where features are kept: a run's cache."""
        return self.run.cache if self.run else None

    @property
    def no_random_init(self) -> str | None:
        """Why there is no network with random weights to compare with; None where there is one."""
        if self.run is None:
            return "only a run has the weights of step 0"
        if self.config.get("backbone_weights"):
            given = self.run.initial_weights
            return (
                f"the run did not start from random weights (byol evaluate {given} judges where it started)"
            )
        return None

    def is_own(self, data: Data | None) -> bool:
        """Say whether data may be what the run was trained on; objects without a name may be."""
        if data is None or not isinstance(data, str | Path):
            return True
        return resolved_spec(str(data)) == self.config.get("data")

    def holdout(self, data: Data | None) -> float:
        """Return the share (or number) held out of train: the run's on its own data, else 10 %."""
        share = self.config.get("holdout") if self.is_own(data) else None
        return HOLDOUT if share is None else float(share)


def open_target(path: str | Path, net: nn.Module | None = None) -> Target:
    """Open a run directory or a bundle folder.

    Args:
        path: of the folder.
        net: an untrained copy of the network, where it was the user's own; it gets the weights.

    Raises:
        UserError: it is neither, or the weights do not fit.
    """
    folder = Path(path)
    run = RunDirectory(folder)
    is_run = run.config_file.is_file()
    backbone = load_backbone(folder, net)
    assert backbone.preprocess is not None
    config = run.config() if is_run else {}
    return Target(backbone, backbone.preprocess, run if is_run else None, config)


def open_data(target: Target, data: Data | None, data_dir: str | None, on_error: str = "stop") -> Source:
    """Open the data to evaluate on: the given ones, else the run's own.

    `on_error` is that of `open_source`, but never "skip" for a number: one that leaves images out is a number
    about other data.

    Raises:
        UserError: none are given and the target names none, they cannot be opened, or their images
            have another number of channels than the backbone takes.
    """
    if data is None:
        data = target.config.get("data")
        if data is None:
            raise UserError("nothing here says which data to use: name them with --data")
        check_named(data)
    folder = data_dir or target.config.get("data_dir") or "./datasets"
    channels = target.backbone.channels
    # 1 and 3 are what sources convert to; other counts are taken as they come.
    wanted = channels if channels in (1, 3) else None
    source = open_source(data, channels=wanted, data_dir=folder, on_error=on_error)
    check_channels(target, source.train, source.name)
    return source


def check_channels(target: Target, images: ImageSet, name: str) -> None:
    """Raise UserError where images have another number of channels than the backbone takes."""
    found, wanted = images[0].shape[0], target.backbone.channels
    if found != wanted:
        raise UserError(f"the backbone takes images of {wanted} channels, those of {name} have {found}")


def chosen_device(name: str) -> torch.device:
    """Return the device of this name; "auto" is CUDA where there is one, then Apple's, then the CPU.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used here: {first_line(error)}") from error
    return device
