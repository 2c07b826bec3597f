"""Train pixel learners on halves of a batch: `python -m tests.core.pixel_whole_batch FOLDER DEVICE`."""

from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from byol.core.pixel_learner import PixelCL
from byol.types import View
from tests.core.batch_norm_kernels import synchronize_on_cpus
from tests.core.conftest import tiny_net
from tests.core.pixel_loops import random_views, with_box
from tests.core.pixel_step import make_pixel_learner
from tests.core.whole_batch import GROUP_NORM, start, trained

CASES: dict[str, dict[str, Any]] = {
    "pixpro": {"alpha": 0.0},
    "pixpro and instances": {"alpha": 1.0},
    "pixcontrast": {"alpha": 0.0, "use_pixpro": False},
    "pixcontrast and instances": {"alpha": 1.0, "use_pixpro": False},
}
MATCHED = ([0, 4, 5, 6, 7], [5, 6], [0, 1, 2, 3, 4, 5, 6, 7], [3], [])
"""Of each step's eight images, those with positive pairs; the first four are the first process's."""


def batches(device: str = "cpu") -> list[tuple[View, View]]:
    """Return both views of each step, the same everywhere."""
    generator = torch.Generator().manual_seed(7)
    found = []
    for matched in MATCHED:
        view1, view2 = random_views(8, 8, generator)
        for image in {*range(8)} - {*matched}:
            view1 = with_box(view1, slice(image, image + 1), (0.0, 0.0, 0.4, 0.4))
            view2 = with_box(view2, slice(image, image + 1), (0.7, 0.7, 1.0, 1.0))
        found.append((moved(view1, device), moved(view2, device)))
    return found


def moved(view: View, device: str) -> View:
    assert view.box is not None
    return View(view.image.to(device), view.box.to(device), view.flipped.to(device))


def half_of(view: View, rank: int) -> View:
    """Return the views of this process's four images."""
    assert view.box is not None
    rows = slice(4 * rank, 4 * rank + 4)
    return View(view.image[rows], view.box[rows], view.flipped[rows])


def make_learner(seed: int, device: str = "cpu", **settings: Any) -> PixelCL:
    torch.manual_seed(seed)
    net = tiny_net().to(device)  # the learner is made where its network is
    return make_pixel_learner(net, moving_average_decay=0.9, **settings).double()


def on_halves(rank: int, device: str, **settings: Any) -> dict[str, Any]:
    """Train on this process's half of each batch, from weights of its own."""
    learner = make_learner(rank, device, **settings)
    halves = [(half_of(first, rank), half_of(second, rank)) for first, second in batches(device)]
    ddp = DistributedDataParallel(learner, device_ids=None if device == "cpu" else [0])
    return trained(learner, ddp, "sgd", halves)


def work(rank: int, folder: str, device: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results: dict[str, Any] = {}
    if device == "cpu":
        results["group"] = {
            name: on_halves(rank, device, **GROUP_NORM, **case) for name, case in CASES.items()
        }
        synchronize_on_cpus()
    results["together"] = {
        name: on_halves(rank, device, sync_batchnorm=True, **case) for name, case in CASES.items()
    }
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    start(work)
