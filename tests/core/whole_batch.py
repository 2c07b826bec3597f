"""Train a learner on equal halves of a batch: `python whole_batch.py FOLDER DEVICE`, two processes.

Each writes, for each case, losses, gradients and the learner's state; `trained` is also what one
process runs on the whole batch.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from byol.core.learner import BYOL
from byol.errors import UserError
from byol.optim.groups import parameter_groups
from byol.optim.lars import LARS

STEPS = 5
OPTIMIZERS = ("sgd", "lars")
CPU_CASES = [
    (optimizer, gather, method == "byol")
    for optimizer in OPTIMIZERS
    for gather in (False, True)
    for method in ("byol", "simsiam")
]


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


def trained(learner: BYOL, module: nn.Module, optimizer_name: str, batches: Tensor) -> dict[str, Any]:
    """Take steps on batches [steps,2,B,C,H,W]; return everything that must be the same in both worlds."""
    groups = parameter_groups(learner, learner.named_online_parameters(), weight_decay=1e-2)
    optimizer = LARS(groups, 0.5) if optimizer_name == "lars" else torch.optim.SGD(groups, 0.05, 0.9)
    outputs: list[Tensor] = []
    learner.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.detach()))
    gradients = []
    for first, second in batches:
        optimizer.zero_grad()
        module(first, second).backward()
        gradients.append({name: p.grad.clone() for name, p in learner.named_online_parameters()})
        optimizer.step()
        learner.update_moving_average()
    with torch.no_grad():
        step = learner.compare(*batches[0])
    return {
        "losses": torch.stack(outputs),
        "gradients": gradients,
        # The unused classifier is left out: nothing trains it, so it stays as each process made it.
        "state": {name: value for name, value in learner.state_dict().items() if ".net.8." not in name},
        "projection": step.projection,
        "target": step.target,
    }


def on_the_cpu(rank: int, folder: str) -> None:
    results = {}
    for case in CPU_CASES:
        optimizer, gather, momentum = case
        learner = make_learner(
            "cpu", seed=rank, normalization="group", gather_projections=gather, use_momentum=momentum
        )
        half = views("cpu").chunk(2, dim=2)[rank]
        results[case] = trained(learner, DistributedDataParallel(learner), optimizer, half)
    results["refused"] = refused(rank)
    torch.save(results, f"{folder}/{rank}.pt")


def refused(rank: int) -> str:
    """Return what is said to batches of different sizes."""
    learner = make_learner("cpu", seed=0, normalization="group", gather_projections=True)
    first, second = views("cpu")[0, :, : 3 + rank]
    try:
        learner(first, second)
    except UserError as error:
        return str(error)
    return ""


def on_a_gpu(rank: int, folder: str) -> None:
    """Both processes on one GPU, with batch statistics over both."""
    results = {}
    for optimizer in OPTIMIZERS:
        learner = make_learner("cuda:0", seed=rank, sync_batchnorm=True)
        half = views("cuda:0").chunk(2, dim=2)[rank]
        ddp = DistributedDataParallel(learner, device_ids=[0])
        results[optimizer] = trained(learner, ddp, optimizer, half)
    torch.save(results, f"{folder}/{rank}.pt")


def work(rank: int, folder: str, device: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    (on_the_cpu if device == "cpu" else on_a_gpu)(rank, folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    folder, device = str(Path(sys.argv[1]).resolve()), sys.argv[2]
    # Forked before torch starts a thread: the import is most of the time. CUDA cannot be forked.
    method = "fork" if device == "cpu" else "spawn"
    torch.multiprocessing.start_processes(work, (folder, device), nprocs=2, start_method=method)
