"""The processes that torchrun or `accelerate launch` started, and this one among them."""

import atexit
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from byol.errors import UserError


@dataclass(frozen=True)
class Process:
    """This process: its number among all of the run, and the device that is its own."""

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


def leave_at_exit() -> None:
    """Part in order when the program ends: NCCL complains about a group that is still there then, and
    gloo's threads can abort the process."""
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
