"""One epoch of BYOL, from images on disk or in memory to trained weights, as a library does it.

Equal for all: the network, heads, batch, precision, augmentations and SGD. lightly's loop is that of its
CIFAR-10 benchmark: a folder of images, a DataLoader whose workers make both views, the average moved before
each step, a cosine schedule by epochs; options give it what its script does not: our memory layout, workers
that stay from epoch to epoch, a compiled network, a core for the worker. Ours is `byol.pretrain`, three
epochs at a time: the second and the third count, by the run's own metrics.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import DEVICE, network
from turn import set_up_torch, take_turns

Answer = dict[str, float]
RATE, DECAY = 0.06, 5e-4
"""Learning rate per 128 images, and weight decay, of lightly's CIFAR-10 benchmark."""


def byol_epoch(options: argparse.Namespace) -> Callable[[], Answer]:
    """Return ours; `--data` is a folder, or images in memory as a file of numpy."""
    data: Any = f"folder:{options.data}"
    if options.data.suffix == ".npy":
        data = torch.from_numpy(np.load(options.data))

    def epoch() -> Answer:
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
            return byol_run(options, data, Path(folder) / "run")

    return epoch


def byol_run(options: argparse.Namespace, data: Any, out: Path) -> Answer:
    """Train for three epochs; return what the last two were like."""
    import byol

    net, _ = network(options.backbone, options.size)
    run = byol.pretrain(
        data,
        net,
        out=str(out),
        devices=1,
        image_size=options.size,
        preset=options.preset,
        batch_size=options.batch,
        epochs="3ep",
        log_every="1ep",
        warmup="0ep",
        knn_every="0ep",
        checkpoint_every="0ep",
        holdout=0,
        optimizer="sgd",
        base_lr=2 * RATE,
        weight_decay=DECAY,
        tau=0.99,
        projection_size=256,
        projection_hidden_size=options.hidden,
        precision=options.precision,
        num_workers=options.num_workers,
        logger="none",
    )
    last = [record for record in run.metrics() if "images_per_second" in record][-2:]
    assert [record["epoch"] for record in last] == [2, 3]
    seconds = [1 / record["images_per_second"] for record in last]
    waiting = [time * record["data_wait"] for time, record in zip(seconds, last, strict=True)]
    return {"images_per_second": 2 / sum(seconds), "data_wait": sum(waiting) / sum(seconds)}


def lightly_epoch(options: argparse.Namespace) -> Callable[[], Answer]:
    """Return lightly's; `--data` is a folder."""
    from lightly.data import LightlyDataset
    from lightly_byol import LightlyBYOL, train_step
    from lightly_views import byol_transform

    transform = byol_transform(options.size, blur=options.preset != "small")
    loader = torch.utils.data.DataLoader(
        LightlyDataset(str(options.data), transform),
        batch_size=options.batch,
        shuffle=True,
        drop_last=True,
        num_workers=options.num_workers,
        persistent_workers=options.keep_workers and options.num_workers > 0,
        pin_memory=options.keep_workers and DEVICE.type == "cuda",
    )
    net, width = network(options.backbone, options.size)
    learner = LightlyBYOL(net, width, options.hidden, options.precision).to(DEVICE)
    layout = torch.channels_last if options.channels_last else torch.preserve_format
    learner.to(memory_format=layout)
    compare = torch.compile(learner) if options.compile else learner

    def placed(view: torch.Tensor) -> torch.Tensor:
        return view.to(DEVICE, non_blocking=True, memory_format=layout)

    rate = RATE * options.batch / 128
    optimizer = torch.optim.SGD(learner.trained(), lr=rate, momentum=0.9, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)

    def epoch() -> Answer:
        waiting, began = 0.0, time.perf_counter()
        mark, batches = began, iter(loader)
        for (first, second), _, _ in batches:
            waiting += time.perf_counter() - mark
            train_step(compare, optimizer, placed(first), placed(second))
            mark = time.perf_counter()
        schedule.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        return {"images_per_second": len(loader) * options.batch / seconds, "data_wait": waiting / seconds}

    return epoch


EPOCHS = {"byol": byol_epoch, "lightly": lightly_epoch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=EPOCHS, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", choices=["small", "imagenet"], required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--hidden", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--num-workers", type=int, required=True)
    parser.add_argument("--threads", type=int, help="that compute; default: one a core")
    parser.add_argument("--channels-last", action="store_true", help="lightly in the layout that ours has")
    parser.add_argument("--keep-workers", action="store_true", help="lightly's loader keeps them, and pins")
    parser.add_argument("--compile", action="store_true", help="lightly compiled")
    options = parser.parse_args()
    set_up_torch(options.threads)
    torch.manual_seed(0)
    take_turns(EPOCHS[options.library](options), lambda epoch: epoch())


if __name__ == "__main__":
    main()
