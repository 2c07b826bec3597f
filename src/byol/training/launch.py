"""How many processes a run has, and who starts them: torchrun, SLURM's srun, or the run itself."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from byol.config import PretrainConfig
from byol.errors import UserError


@dataclass(frozen=True)
class Launch:
    """The processes of a run."""

    starter: Literal["torchrun", "srun", "byol"]
    devices: int
    """Processes on each machine."""
    nodes: int = 1
    """Machines."""

    @property
    def processes(self) -> int:
        """Return the number of processes on all machines."""
        return self.devices * self.nodes


def launch_of(config: PretrainConfig) -> Launch:
    """Return the processes that were started, or that are to be started here.

    Raises:
        UserError: `--devices` or `--nodes` contradicts what was started, more devices are asked for
            than there are, or several machines without anything that starts processes on them.
    """
    launch = started_outside()
    if launch is None:
        if config.nodes > 1:
            raise UserError(
                f"--nodes {config.nodes}: nothing has started processes on several machines. Start the "
                "run on each of them with torchrun, or in a SLURM job with srun (docs/distributed.md)"
            )
        launch = Launch("byol", _devices_here(config))
    _refuse_contradiction("--devices", config.devices, ("auto", str(launch.devices)), launch)
    _refuse_contradiction("--nodes", config.nodes, (1, launch.nodes), launch)
    gpus = torch.cuda.device_count()
    if gpus and launch.devices > gpus:
        hint = ". Ask SLURM for --gpus-per-node, not --gpus-per-task" if launch.starter == "srun" else ""
        raise UserError(f"{launch.devices} processes on a machine, but this one shows {gpus} GPUs{hint}")
    return launch


def started_outside(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return the processes that torchrun or srun has started, or None where nothing has.

    Raises:
        UserError: not as many on each machine.
    """
    if "LOCAL_WORLD_SIZE" in environment:
        devices, processes = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
        return Launch("torchrun", devices, _shared_out("torchrun", processes, devices))
    # Only srun sets a step: the batch script itself has the other variables of a first task, too.
    # A step of one task may be a shell, from which a run starts its own processes.
    tasks = int(environment.get("SLURM_NTASKS", 1)) if "SLURM_STEP_ID" in environment else 1
    if tasks == 1:
        return None
    if "SLURM_NTASKS_PER_NODE" not in environment:
        raise UserError(f"srun started {tasks} tasks: give SLURM --ntasks-per-node, not --ntasks")
    devices = int(environment["SLURM_NTASKS_PER_NODE"])
    return Launch("srun", devices, _shared_out("srun", tasks, devices))


def command_again() -> list[str]:
    """Return what starts this program again.

    Raises:
        UserError: it was typed in, or is a notebook.
    """
    module = sys.modules["__main__"].__spec__
    if module is not None:
        return [sys.executable, "-m", module.name, *sys.argv[1:]]
    if not Path(sys.argv[0]).is_file():
        raise UserError("several processes are started by running the program again: it must be a file")
    return [sys.executable, *sys.argv]


def _devices_here(config: PretrainConfig) -> int:
    return (torch.cuda.device_count() or 1) if config.devices == "auto" else int(config.devices)


def _shared_out(starter: str, processes: int, devices: int) -> int:
    if processes % devices:
        raise UserError(
            f"{starter} started {processes} processes, {devices} of them on this machine: "
            "start as many on each machine"
        )
    return processes // devices


def _refuse_contradiction(flag: str, given: object, allowed: tuple[object, ...], launch: Launch) -> None:
    if given not in allowed:
        raise UserError(
            f"{flag} {given}, but {launch.starter} started {launch.devices} processes on each of "
            f"{launch.nodes} machines: leave {flag} out"
        )
