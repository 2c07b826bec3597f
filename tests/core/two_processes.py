"""Train a learner in two processes: `python two_processes.py FOLDER`; each writes its state there."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from byol.core.learner import BYOL


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(rank)  # other weights and other images in each process
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    learner = BYOL(net, 8, -2, 5, 12, moving_average_decay=0.9)
    ddp = DistributedDataParallel(learner)
    optimizer = torch.optim.SGD(ddp.module.online_parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        ddp(torch.rand(4, 3, 8, 8)).backward()
        optimizer.step()
        ddp.module.update_moving_average()
    parameters = {name: p.detach() for name, p in learner.named_parameters()}
    gradients = {name: p.grad for name, p in learner.named_online_parameters()}
    torch.save({"parameters": parameters, "gradients": gradients}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    # Forked before torch starts a thread: the import is most of the time.
    torch.multiprocessing.start_processes(
        work, (str(Path(sys.argv[1]).resolve()),), nprocs=2, start_method="fork"
    )
