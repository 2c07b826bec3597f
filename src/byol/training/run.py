"""`byol.pretrain`: set up, build, fit."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from byol.bundle import load_backbone
from byol.config import PretrainConfig
from byol.core.backbone import Backbone
from byol.data.batches import BatchPlan
from byol.data.decode import UnreadableImage
from byol.errors import UserError
from byol.evaluation.monitor import holdout_knn
from byol.rundir import RunDirectory, free_path
from byol.settings import settings_from
from byol.training import checkpoint
from byol.training.building import batches, build_module, save_initial_weights
from byol.training.callbacks import Checkpoints, Clock, Monitor, StepEnd, StopOnSignal
from byol.training.environment import environment
from byol.training.errors import Interrupted
from byol.training.module import Pretraining
from byol.training.picture import FirstViews
from byol.training.preparation import Data, PreparedData, lengths, prepare_data, resolve, worker_count
from byol.training.progress import Progress
from byol.training.trainer import build_trainer, end_other_processes, process_rank

_MAY_CHANGE_ON_RESUME = ("devices", "nodes", "num_workers", "debug")
DEFAULT_DATA, DEFAULT_BACKBONE = PretrainConfig.data, PretrainConfig.backbone
# Lightning starts the other processes with the same command; they must not choose another folder.
_RUN_PATH_VARIABLE = "BYOL_RUN_PATH"


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path

    def results(self) -> list[dict[str, Any]]:
        """Return the records of results.json."""
        return RunDirectory(self.path).results()

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records of metrics.jsonl."""
        return RunDirectory(self.path).metrics()

    def backbone(self, net: nn.Module | None = None) -> Backbone:
        """Return the trained backbone, as `byol.load_backbone`."""
        return load_backbone(self.path, net)


def pretrain(
    data: Data = DEFAULT_DATA,
    backbone: str | nn.Module = DEFAULT_BACKBONE,
    *,
    hidden_layer: str | int | None = None,
    resume: str | Path | None = None,
    **settings: Any,
) -> Run:
    """Train a backbone on images without labels.

    Args:
        data: as `--data`, or a torch Dataset, or a uint8 tensor [N,C,H,W].
        backbone: a timm name, or a network of your own, which is trained in place.
        hidden_layer: of a network of your own: whose output is the representation (see `BYOL`);
            None: the network's own output.
        resume: a run directory to continue; pass your own data and network again, if you had any.
        **settings: the flags of `byol pretrain` with underscores.

    Returns:
        The run: `.path`, `.results()`, `.metrics()`, `.backbone()`.

    Raises:
        UserError: a setting, the data or the network is not as it should be.
        Interrupted: a stop signal arrived; the run was saved and can be resumed.
    """
    inputs = _Inputs(data, backbone, hidden_layer)
    # The weights and every step seed torch's global generator; the caller's is given back as it was.
    # Only the CPU's: asking for the GPUs' would start work on every one of them.
    with torch.random.fork_rng(devices=[]):
        if resume is not None:
            return _resume(inputs, RunDirectory.existing(resume), settings)
        return _start(inputs, settings)


@dataclass(frozen=True)
class _Inputs:
    """What the caller passed beside settings; objects of the caller's own are not in the settings."""

    data: Data
    backbone: str | nn.Module
    hidden_layer: str | int | None

    def named(self) -> dict[str, str]:
        """Return their names, in angle brackets for the caller's own objects."""
        inputs = {"data": self.data, "backbone": self.backbone}
        return {
            name: value if isinstance(value, str) else f"<{type(value).__name__}>"
            for name, value in inputs.items()
        }

    def conflicts(self, stored: dict[str, Any]) -> list[str]:
        """Return what was named, and is neither the default nor what a stored run has."""
        defaults = {"data": DEFAULT_DATA, "backbone": DEFAULT_BACKBONE}
        given = {"data": self.data, "backbone": self.backbone}
        return [
            name
            for name, value in given.items()
            if isinstance(value, str) and value not in (defaults[name], stored.get(name))
        ]

    @property
    def net(self) -> nn.Module | None:
        return None if isinstance(self.backbone, str) else self.backbone


def _start(inputs: _Inputs, settings: dict[str, Any]) -> Run:
    config = settings_from(PretrainConfig, {**settings, **inputs.named()})
    run = RunDirectory(_run_path(config))
    if process_rank() == 0:
        run.refuse_existing()
    prepared = prepare_data(inputs.data, config)
    config = resolve(config, prepared)

    def begin(module: Pretraining) -> None:
        if module.plan.rank == 0:
            _write_run_files(run, config, module, prepared.skipped)

    return _train(config, run, prepared, inputs, begin, state=None)


def _resume(inputs: _Inputs, run: RunDirectory, settings: dict[str, Any]) -> Run:
    stored = run.config()
    refused = [name for name in settings if name not in _MAY_CHANGE_ON_RESUME] + inputs.conflicts(stored)
    if refused:
        allowed = ", ".join("--" + name.replace("_", "-") for name in _MAY_CHANGE_ON_RESUME[:3])
        raise UserError(
            f"--resume continues a run as it was: only {allowed} may stand beside it, "
            f"not --{refused[0].replace('_', '-')}"
        )
    # The checkpoint holds the weights: those that the run started from are not read again.
    config = settings_from(PretrainConfig, {**stored, **settings, "backbone_weights": None})
    state = checkpoint.load(run.last_checkpoint)
    data = inputs.data if not isinstance(inputs.data, str) else config.data
    prepared = prepare_data(data, config)
    checkpoint.check_data(state, prepared)

    def begin(module: Pretraining) -> None:
        if module.plan.rank == 0:
            run.cut_metrics(state["step"])

    return _train(config, run, prepared, inputs, begin, state)


def _train(
    config: PretrainConfig,
    run: RunDirectory,
    data: PreparedData,
    inputs: _Inputs,
    begin: Callable[[Pretraining], None],
    state: dict[str, Any] | None,
) -> Run:
    """Build everything, then let Lightning run from the state's step to the end."""
    step_end = StepEnd(Clock())
    trainer = build_trainer(config, run, step_end)
    plan = BatchPlan(
        len(data.pretraining),
        config.batch_size,
        config.accumulate,
        trainer.world_size,
        trainer.global_rank,
        config.seed,
    )
    durations = lengths(config, plan.steps_per_epoch)
    module, architecture = build_module(config, data, plan, durations, inputs.net, inputs.hidden_layer)
    progress = Progress(durations.total)
    stored = stored_settings(config) if state is None else state["config"]
    saving = Checkpoints(run, stored, data.identity(), architecture, durations.checkpoint, step_end.clock)
    stop = StopOnSignal(saving.save, str(run.path))
    step_end.starts.append(stop.install)
    if state is not None:
        step_end.starts.append(lambda: checkpoint.restore(module, trainer.optimizers[0], state))
    if trainer.is_global_zero:
        step_end.starts.append(FirstViews(run.views_picture, module, data, config))
        measure_knn = _knn_measure(data, config)
        log_metrics = trainer.logger.log_metrics if trainer.logger else lambda values, step: None
        monitor = Monitor(run, progress, step_end.clock, log_metrics, durations, measure_knn)
        step_end.actions.append(monitor)
        if data.skipped:
            progress.say(_skipped_message(data.skipped))
    step_end.actions += [saving, stop]
    start = 0 if state is None else state["step"]
    os.environ[_RUN_PATH_VARIABLE] = str(run.path)
    stop.install()
    try:
        begin(module)
        trainer.fit(module, batches(config, data, plan, start, durations.total))
    except Interrupted:
        raise
    except BaseException as error:
        _leave_in_order(error, run, module, saving)
        end_other_processes(trainer)
        raise
    finally:
        del os.environ[_RUN_PATH_VARIABLE]
        stop.uninstall()
        progress.close()
    return Run(run.path)


def stored_settings(config: PretrainConfig) -> dict[str, Any]:
    """Return what config.yaml holds: every setting but where the run was written and how it was shown."""
    return {name: value for name, value in asdict(config).items() if name not in ("out", "debug")}


def _knn_measure(data: PreparedData, config: PretrainConfig) -> Callable[[Pretraining], float] | None:
    """Return what measures kNN on the hold-out, or None without labels."""
    if data.train.labels is None or len(data.holdout) == 0:
        return None
    workers = 0 if data.images is not None else worker_count(config)

    def measure(module: Pretraining) -> float:
        backbone = module.learner.backbone
        assert backbone.preprocess is not None
        return holdout_knn(
            backbone, backbone.preprocess, data.train, data.holdout, module.device, num_workers=workers
        )

    return measure


def _run_path(config: PretrainConfig) -> Path:
    """Return --out, or the next free runs/DATA-METHOD-N; the same in all processes of a run."""
    if _RUN_PATH_VARIABLE in os.environ:
        return Path(os.environ[_RUN_PATH_VARIABLE])
    if config.out is not None:
        return Path(config.out)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("several processes need the same run directory: give --out")
    name = "".join(letter if letter.isalnum() else "-" for letter in Path(config.data).name.strip("<>"))
    return free_path(f"runs/{name}-{config.method}")


def _skipped_message(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 5} more (all in env.json)" if len(names) > 5 else ""
    plural = "image" if len(names) == 1 else "images"
    return f"left out {len(names)} unreadable {plural}: {', '.join(names[:5])}{more}"


def _write_run_files(
    run: RunDirectory, config: PretrainConfig, module: Pretraining, skipped: tuple[str, ...]
) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_config(stored_settings(config))
    run.write_environment({**environment(), "left_out": list(skipped)})
    save_initial_weights(run, module)


def _leave_in_order(
    error: BaseException, run: RunDirectory, module: Pretraining, saving: Checkpoints
) -> None:
    """Leave nothing behind of a run that failed before its first step; save one that meets an image
    that cannot be read, so that it goes on from there once the image is mended."""
    if module.plan.rank != 0:
        return
    if module.step == 0:
        shutil.rmtree(run.path, ignore_errors=True)
    elif isinstance(error, UnreadableImage):
        saving.save(module)
