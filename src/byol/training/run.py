"""`byol.pretrain`: start a run, or go on with one."""

import copy
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from byol.augment.view_settings import written_out
from byol.bundle import load_backbone
from byol.config import PretrainConfig
from byol.core.backbone import Backbone
from byol.data.source import check_named, resolved_spec
from byol.errors import UserError
from byol.rundir import RunDirectory, free_path
from byol.settings import flag, layered, settings_from
from byol.training import checkpoint
from byol.training.loggers import check_loggers
from byol.training.peer_processes import RUN_PATH_VARIABLE
from byol.training.preparation import Data, PreparedData, prepare_data
from byol.training.processes import is_first_process, launch_of, started_outside
from byol.training.resolution import resolve
from byol.training.session import Session

_MAY_CHANGE_ON_RESUME = ("devices", "nodes", "num_workers", "debug")


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    labelled: bool = True
    """The train images have labels: `byol evaluate` can judge the features."""
    net: nn.Module | None = field(default=None, repr=False)
    """The user's own network, where it was one."""
    masked: bool = False
    """They have masks: `byol evaluate --protocol segmentation` can."""

    def results(self) -> list[dict[str, Any]]:
        """Return the records of results.json."""
        return RunDirectory(self.path).results()

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records of metrics.jsonl."""
        return RunDirectory(self.path).metrics()

    def backbone(self, net: nn.Module | None = None) -> Backbone:
        """Return the trained backbone, as `byol.load_backbone`; `net` defaults to a copy of your own."""
        return load_backbone(self.path, copy.deepcopy(self.net) if net is None else net)


def pretrain(
    data: Data | Path | None = None,
    backbone: str | nn.Module | None = None,
    *,
    hidden_layer: str | int | None = None,
    resume: str | Path | None = None,
    **settings: Any,
) -> Run:
    """Train a backbone on images without labels.

    Args:
        data: as `--data`, or a torch Dataset, or a uint8 tensor [N,C,H,W]; None: the recipe's, else digits.
        backbone: a timm name, or a network of your own, which is trained in place; None: the recipe's,
            else resnet18.
        hidden_layer: of a network of your own: whose output is the representation (see `BYOL`);
            None: the network's own output.
        resume: a run directory to continue; pass your own data and network again, if you had any.
        **settings: the flags of `byol pretrain` with underscores, `recipe` and `config` among them; `preset`
            may also be two `ViewSpec`s.

    Returns:
        The run: `.path`, `.results()`, `.metrics()`, `.backbone()`.

    Raises:
        UserError: a setting, the data or the network is not as it should be.
        Interrupted: a stop signal arrived; the run was saved and can be resumed.
    """
    inputs = _Inputs(str(data) if isinstance(data, Path) else data, backbone, hidden_layer)
    # The weights and every step seed torch's global generator; the caller's is given back as it was.
    # Only the CPU's: asking for the GPUs' would start work on every one of them.
    with torch.random.fork_rng(devices=[]):
        if resume is not None:
            return _resume(inputs, RunDirectory.existing(resume), settings)
        return _start(inputs, layered(PretrainConfig, settings))


@dataclass(frozen=True)
class _Inputs:
    """What the caller passed beside settings; objects of the caller's own are not in the settings."""

    data: Data | None
    backbone: str | nn.Module | None
    hidden_layer: str | int | None

    def named(self) -> dict[str, str]:
        """Return the names of those that were passed, in angle brackets for the caller's own objects."""
        inputs = {"data": self.data, "backbone": self.backbone}
        return {
            name: value if isinstance(value, str) else f"<{type(value).__name__}>"
            for name, value in inputs.items()
            if value is not None
        }

    def conflicts(self, stored: dict[str, Any]) -> list[str]:
        """Return what was named, and is not what a stored run has."""
        data = resolved_spec(self.data) if isinstance(self.data, str) else self.data
        given = {"data": data, "backbone": self.backbone}
        return [name for name, value in given.items() if isinstance(value, str) and value != stored.get(name)]

    @property
    def own_data(self) -> Dataset[Any] | Tensor | None:
        return None if isinstance(self.data, str) else self.data

    @property
    def net(self) -> nn.Module | None:
        return None if isinstance(self.backbone, str) else self.backbone


def _start(inputs: _Inputs, settings: dict[str, Any]) -> Run:
    config = _read_settings({**settings, **inputs.named()})
    run = RunDirectory(_run_path(config))
    if is_first_process():
        run.refuse_existing()
        check_loggers(config, run)
    data = _prepared(inputs, config)
    Session(resolve(config, data), run, data, inputs.net, inputs.hidden_layer).train()
    return _finished(run, data, inputs)


def _run_path(config: PretrainConfig) -> Path:
    """Return --out, or the next free runs/DATA-METHOD-N; the same in all processes of a run.

    Raises:
        UserError: several processes were started from outside without an --out that they agree on, or
            as `launch_of`.
    """
    launch = launch_of(config)
    given = os.environ.pop(RUN_PATH_VARIABLE, None) or config.out
    if given is not None:
        return Path(given)
    if launch.starter != "byol" and launch.processes > 1:
        raise UserError("several processes need the same run directory: give --out")
    place = Path(resolved_spec(config.data).removeprefix("folder:").removeprefix("hf:")).name.strip("<>")
    name = "".join(letter if letter.isalnum() else "-" for letter in place)
    return free_path(f"runs/{name}-{config.method}")


def _read_settings(settings: dict[str, Any]) -> PretrainConfig:
    """Return the settings of a new run; views of one's own are written out, as config.yaml has them."""
    preset = written_out(settings.get("preset"))
    config = settings_from(PretrainConfig, {**settings, "preset": preset})
    return replace(config, preset=written_out(config.preset))  # a flag's text may hold names and values


def _resume(inputs: _Inputs, run: RunDirectory, settings: dict[str, Any]) -> Run:
    stored = run.config()
    refused = [name for name in settings if name not in _MAY_CHANGE_ON_RESUME] + inputs.conflicts(stored)
    if refused:
        allowed = ", ".join(map(flag, _MAY_CHANGE_ON_RESUME[:3]))
        raise UserError(
            f"--resume continues a run as it was: only {allowed} may stand beside it, not {flag(refused[0])}"
        )
    if inputs.own_data is None:
        check_named(stored["data"])
    # The checkpoint holds the weights: those that the run started from are not read again.
    # How many processes go on is for whoever starts them now.
    stored |= {"backbone_weights": None, "nodes": PretrainConfig.nodes}
    if stored.get("holdout") is None:  # there were no labels, so none was held out: that stays
        stored["holdout"] = 0.0
    if started_outside() is not None:
        stored["devices"] = PretrainConfig.devices
    config = settings_from(PretrainConfig, {**stored, **settings})
    launch_of(config)
    state = checkpoint.load(run.last_checkpoint)
    if is_first_process():
        check_loggers(config, run)
    data = _prepared(inputs, config)
    checkpoint.check_data(state, data)
    Session(config, run, data, inputs.net, inputs.hidden_layer, state).train()
    return _finished(run, data, inputs)


def _prepared(inputs: _Inputs, config: PretrainConfig) -> PreparedData:
    return prepare_data(config.data if inputs.own_data is None else inputs.own_data, config)


def _finished(run: RunDirectory, data: PreparedData, inputs: _Inputs) -> Run:
    return Run(run.path, data.train.labels is not None, inputs.net, data.train.masks is not None)
