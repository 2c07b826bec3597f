"""Train learners on equal halves of a batch: `python -m tests.core.whole_batch FOLDER DEVICE`, two processes.

Each writes, for each case, losses, gradients and the learner's state; `trained` is also what one
process runs on the whole batch.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from byol.core.base_learner import Learner
from byol.core.learner import BYOL
from byol.errors import UserError
from byol.optim.groups import parameter_groups
from byol.optim.lars import LARS
from byol.types import View
from tests.core.batch_norm_kernels import synchronize_on_cpus

STEPS = 5
Pairs = Tensor | Sequence[tuple[View, View]]
"""Of each step: [steps,2,B,C,H,W], or views with their geometry."""


class Case(NamedTuple):
    """Options of one training; as text, the key of its results."""

    optimizer: str = "sgd"
    momentum: bool = True
    gather: bool = False

    def __str__(self) -> str:
        method = "byol" if self.momentum else "simsiam"
        return f"{self.optimizer}-{method}" + "-gathered" * self.gather

    @property
    def options(self) -> dict[str, Any]:
        """Return them as the learner takes them."""
        return {"use_momentum": self.momentum, "gather_projections": self.gather}


CASES = [
    Case(optimizer, momentum, gather)
    for optimizer in ("sgd", "lars")
    for momentum in (True, False)
    for gather in (False, True)
]
GROUP_NORM: dict[str, Any] = {"normalization": "group"}


def views(device: str) -> Tensor:
    """Return ready-made views [steps,2,B,C,H,W], the same everywhere."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(STEPS, 2, 8, 3, 8, 8, generator=generator, dtype=torch.float64).to(device)


def make_learner(device: str, seed: int, **settings: Any) -> BYOL:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    return BYOL(net.double().to(device), 8, -2, 6, 32, moving_average_decay=0.9, **settings)


def make_optimizer(learner: Learner, name: str) -> torch.optim.Optimizer:
    groups = parameter_groups(learner, learner.named_online_parameters(), weight_decay=1e-2)
    return LARS(groups, 0.5) if name == "lars" else torch.optim.SGD(groups, 0.05, 0.9)


def trained(learner: Any, module: nn.Module, optimizer_name: str, batches: Pairs) -> dict[str, Any]:
    """Take steps on pairs of views; return everything that must be the same in both worlds."""
    optimizer = make_optimizer(learner, optimizer_name)
    outputs: list[Tensor] = []
    learner.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.detach()))
    gradients = []
    for first, second in batches:
        optimizer.zero_grad()
        module(first, second).backward()
        gradients.append({name: p.grad.clone() for name, p in learner.named_online_parameters()})
        optimizer.step()
        learner.update_moving_average()
    state = state_of(learner)
    with torch.no_grad():
        step = learner.compare(*batches[0])
    return {
        "losses": torch.stack(outputs),
        "gradients": gradients,
        "state": state,
        "projection": step.projection,
        "target": step.target,
    }


def state_of(learner: Learner) -> dict[str, Tensor]:
    """Return a copy of the state, but for the unused classifier, which stays as each process made it."""
    return {name: value.clone() for name, value in learner.state_dict().items() if ".net.8." not in name}


def on_halves(rank: int, device: str, case: Case, **settings: Any) -> dict[str, Any]:
    """Train on this process's half of each batch, from weights of its own."""
    learner = make_learner(device, seed=rank, **settings, **case.options)
    half = views(device).chunk(2, dim=2)[rank]
    ddp = DistributedDataParallel(learner, device_ids=None if device == "cpu" else [0])
    return trained(learner, ddp, case.optimizer, half)


def refused(rank: int) -> str:
    """Return what is said to batches of different sizes."""
    learner = make_learner("cpu", seed=0, gather_projections=True, **GROUP_NORM)
    first, second = views("cpu")[0, :, : 3 + rank]
    try:
        learner(first, second)
    except UserError as error:
        return str(error)
    return ""


def synchronized_norms(device: str, sync_batchnorm: bool | None) -> tuple[int, int]:
    """Return how many of a learner's batch norms compute over all processes, and how many there are."""
    modules = list(make_learner(device, seed=0, sync_batchnorm=sync_batchnorm).modules())
    norms = [module for module in modules if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return sum(isinstance(norm, nn.SyncBatchNorm) for norm in norms), len(norms)


def work(rank: int, folder: str, device: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results: dict[str, Any] = {}
    if device == "cpu":
        results["refused"] = refused(rank)
        results["group"] = {str(case): on_halves(rank, device, case, **GROUP_NORM) for case in CASES}
        results["apart"] = on_halves(rank, device, Case(), sync_batchnorm=False)
        synchronize_on_cpus()
    results["together"] = {str(case): on_halves(rank, device, case, sync_batchnorm=True) for case in CASES}
    results["norms"] = {wanted: synchronized_norms(device, wanted) for wanted in (None, True, False)}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def start(work: Callable[[int, str, str], None]) -> None:
    """Do work in two processes, told by the command line in which folder and on which device."""
    folder, device = str(Path(sys.argv[1]).resolve()), sys.argv[2]
    # Forked before torch starts a thread: the import is most of the time. CUDA cannot be forked.
    method = "fork" if device == "cpu" else "spawn"
    torch.multiprocessing.start_processes(work, (folder, device), nprocs=2, start_method=method)


if __name__ == "__main__":
    start(work)
