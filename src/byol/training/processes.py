"""The processes of a run: who starts them and how many, which one this is, and how it joins the others.

`byol pretrain` has them started by torchrun, by SLURM's srun, or by the run itself (`peer_processes.py`), and
joined by Lightning. `BYOLTrainer` takes part in what torchrun or `accelerate launch` started.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

from byol.config import PretrainConfig
from byol.errors import UserError
from byol.training.process_group import leave_at_exit


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
            than there are, several machines without anything that starts processes on them, or several
            processes of a notebook.
    """
    launch = started_outside()
    if launch is None:
        if config.nodes > 1:
            raise UserError(
                f"--nodes {config.nodes}: nothing has started processes on several machines. Start the "
                "run on each of them with torchrun, or in a SLURM job with srun (docs/distributed.md)"
            )
        launch = Launch("byol", _devices_here(config))
        if launch.devices > 1 and _is_interactive():
            raise UserError(
                f"{launch.devices} processes are started by running the program again, which neither a "
                "notebook nor a prompt can be: give devices=1, or put the program into a file"
            )
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
        UserError: it was typed in.
    """
    module = sys.modules["__main__"].__spec__
    if module is not None:
        return [sys.executable, "-m", module.name, *sys.argv[1:]]
    if not Path(sys.argv[0]).is_file():
        raise UserError("several processes are started by running the program again: it must be a file")
    return [sys.executable, *sys.argv]


def is_first_process() -> bool:
    """Say whether this process is the one that tells, as Lightning knows also before it has joined them."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only  # `BYOLTrainer` does without Lightning

    return int(getattr(rank_zero_only, "rank", 0)) == 0


@dataclass(frozen=True)
class Process:
    """This process of `BYOLTrainer`: its number among all of the run, and the device that is its own."""

    rank: int
    count: int
    """Number of processes."""
    device: torch.device

    @property
    def is_first(self) -> bool:
        """The one that writes and tells."""
        return self.rank == 0


def join_processes(cpu: bool = False) -> Process:
    """Meet the other processes of the run, if a launcher started several (WORLD_SIZE).

    Each has a GPU of its own, or all are on the CPU and talk over gloo. A process group that is
    there already is used as it is.

    Args:
        cpu: stay on the CPU where there are GPUs.

    Raises:
        UserError: there are more processes on this machine than GPUs.
    """
    device = _own_device(cpu)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        leave_at_exit()
    if not (dist.is_available() and dist.is_initialized()):
        return Process(0, 1, device)
    return Process(dist.get_rank(), dist.get_world_size(), device)


def agreed(number: int, process: Process) -> int:
    """Return the first process's number on all of them."""
    if process.count == 1:
        return number
    shared = torch.tensor(number, device=process.device)
    dist.broadcast(shared, src=0)
    return int(shared)


def _is_interactive() -> bool:
    """Say whether this is a prompt or a notebook, whose program is the file of its kernel."""
    return hasattr(sys, "ps1") or Path(sys.argv[0]).name == "ipykernel_launcher.py"


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


def _own_device(cpu: bool) -> torch.device:
    if cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local_rank >= gpus:
        raise UserError(
            f"process {local_rank + 1} on this machine has no GPU, there are {gpus}: start {gpus}, "
            "or train on the CPU"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
