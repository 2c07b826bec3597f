"""Lightning's Trainer, reduced to what it is for here: devices, processes, precision."""

import logging
import os
import signal
import warnings

import lightning as L
import torch

from byol.config import PretrainConfig
from byol.errors import UserError

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def build_trainer(config: PretrainConfig) -> L.Trainer:
    """Return a trainer for which a whole run is one epoch: order, saving and resuming are our own.

    Raises:
        UserError: more devices are asked for than there are.
    """
    _quieten()
    on_gpu = torch.cuda.is_available()
    devices = _devices(config, on_gpu)
    several = devices * config.nodes > 1
    return L.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=devices,
        num_nodes=config.nodes,
        strategy="ddp" if several else "auto",
        precision=_PRECISIONS[config.precision],  # type: ignore[arg-type]  # a literal of Lightning's
        max_epochs=1,
        accumulate_grad_batches=config.accumulate,
        sync_batchnorm=several and on_gpu,
        use_distributed_sampler=False,
        logger=False,  # we log ourselves
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )


def process_rank() -> int:
    """Return this process's number among all of the run, before Lightning has joined them."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0))


def end_other_processes(trainer: L.Trainer) -> None:
    """Kill the processes that Lightning started for this run: they would wait for this one for ever."""
    launcher = trainer.strategy.launcher
    if launcher is not None and trainer.is_global_zero:
        launcher.kill(signal.SIGKILL)


def _devices(config: PretrainConfig, on_gpu: bool) -> int:
    """Return the number of processes on this machine; torchrun's word where it started us."""
    started = os.environ.get("LOCAL_WORLD_SIZE")
    if config.devices == "auto":
        return int(started) if started else (torch.cuda.device_count() if on_gpu else 1)
    devices = int(config.devices)
    if on_gpu and devices > torch.cuda.device_count():
        raise UserError(f"--devices {devices}: this machine has {torch.cuda.device_count()} GPUs")
    if started and devices != int(started):
        raise UserError(f"--devices {devices}, but torchrun started {started} processes on this machine")
    return devices


def _quieten() -> None:
    """Leave the terminal to our own lines; Lightning's advice is about loops that we do not use."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("lightning.pytorch", "lightning.fabric"):
        warnings.filterwarnings("ignore", module=module)
