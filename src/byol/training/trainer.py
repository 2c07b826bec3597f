"""Lightning's Trainer, reduced to what it is for here: devices, processes, precision."""

import logging
import warnings

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from byol.config import PretrainConfig
from byol.training.processes import Launch

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def build_trainer(config: PretrainConfig, launch: Launch) -> L.Trainer:
    """Return a trainer for which a whole run is one epoch: order, saving and resuming are our own."""
    _quieten()
    on_gpu = torch.cuda.is_available()
    several = launch.processes > 1
    return L.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=launch.devices,
        num_nodes=launch.nodes,
        strategy="ddp" if several else "auto",
        plugins=_cluster(launch),
        precision=_PRECISIONS[config.precision],  # type: ignore[arg-type]  # a literal of Lightning's
        max_epochs=1,
        accumulate_grad_batches=config.accumulate,
        use_distributed_sampler=False,
        logger=False,  # we log ourselves
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )


class _OneMachine(LightningEnvironment):
    """Processes that we start and watch ourselves (`PeerProcesses`), whatever other tools' variables say."""

    creates_processes_externally = True
    main_address = "127.0.0.1"

    def node_rank(self) -> int:
        """Return the number of this machine."""
        return 0


def _cluster(launch: Launch) -> ClusterEnvironment:
    """Return where Lightning learns a process's rank and the first one's address."""
    if launch.starter == "torchrun":
        return TorchElasticEnvironment()
    # Requeueing is our own: Lightning would save a checkpoint of another kind.
    return SLURMEnvironment(auto_requeue=False) if launch.starter == "srun" else _OneMachine()


def _quieten() -> None:
    """Leave the terminal to our own lines; Lightning's advice is about loops that we do not use."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)
