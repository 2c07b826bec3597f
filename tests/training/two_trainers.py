"""Train in two processes: `python -m tests.training.two_trainers FOLDER PORT PORT`; each writes what it saw.

Then two others do what FOLDER/train.py says.
"""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import byol
from byol.training import byol_trainer
from tests.training.conftest import Recorded, tiny_net

SETTINGS: dict[str, Any] = {"image_size": 8, "hidden_layer": -2, "learning_rate": 0.05, "num_train_steps": 4}
HEADS = {"projection_size": 5, "projection_hidden_size": 12}


def same(image: Tensor) -> Tensor:
    """Leave images as they are: what happens then does not depend on chance."""
    return image


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def train(folder: str, accumulate: int) -> tuple[byol.BYOLTrainer, list[int]]:
    """Train on 23 images in batches of 5 for two epochs of two steps; views are the images themselves."""
    data = Recorded(images(23))
    trainer = byol.BYOLTrainer(
        tiny_net().double(),
        dataset=data,
        batch_size=5,
        checkpoint_every=2,
        checkpoint_folder=folder,
        byol_kwargs={"augment_fn": same, **HEADS},
        accelerator_kwargs={"gradient_accumulation_steps": accumulate},
        optimizer_klass=torch.optim.SGD,  # which feels the size of a gradient, unlike Adam
        optimizer_kwargs={"momentum": 0.9},
        **SETTINGS,
    )
    trainer()
    return trainer, data.seen


def first_view(folder: str) -> Tensor:
    """Return what the network is shown first where all images are the same."""
    shown: list[Tensor] = []
    net = tiny_net()
    data = byol.MockDataset(8, 1)[0].expand(8, 3, 8, 8)
    trainer = byol.BYOLTrainer(
        net,
        dataset=Recorded(data),
        batch_size=4,
        checkpoint_folder=folder,
        byol_kwargs=HEADS,
        **{**SETTINGS, "num_train_steps": 1},
    )
    net.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    trainer()
    return shown[0]


def be_one_of_two(rank: int, port: int | str) -> None:
    """Have the variables that torchrun would give this process."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def work(rank: int, folder: str, port: str) -> None:
    be_one_of_two(rank, port)
    written, write = [], byol_trainer.write_state
    byol_trainer.write_state = lambda file, state: (written.append(file.name), write(file, state))[1]
    barriers, barrier = [], dist.barrier
    dist.barrier = lambda: (barriers.append(rank), barrier())[1]
    torch.manual_seed(rank)  # other weights, and another generator, in each process
    trainer, seen = train(f"{folder}/checkpoints", accumulate=1)
    assert trainer.process.count == dist.get_world_size() == 2
    report = {"seen": seen, "written": written.copy(), "state": trainer.state_dict()}
    report["barriers"] = len(barriers)
    report["files"] = sorted(file.name for file in Path(folder, "checkpoints").iterdir())
    report["view"] = first_view(f"{folder}/again")
    torch.save(report, f"{folder}/{rank}.pt")


def follow_script(rank: int, folder: str, port: str) -> None:
    be_one_of_two(rank, port)
    os.chdir(folder)
    runpy.run_path("train.py", run_name="__main__")


if __name__ == "__main__":
    folder = str(Path(sys.argv[1]).resolve())
    # Forked before torch starts a thread: the import is most of the time.
    for function, port in zip((work, follow_script), sys.argv[2:], strict=True):
        torch.multiprocessing.start_processes(function, (folder, port), nprocs=2, start_method="fork")
