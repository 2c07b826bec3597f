"""A short `byol.pretrain` on so many made-up 32 px images in memory: start-up, pace and memory.

Asked once a process: memory counts from the start.
"""

import argparse
import io
import re
import tempfile
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from networks import network
from turn import set_up_torch, take_turns

import byol
from byol.augment.presets import PRESETS
from byol.config import PretrainConfig
from byol.training.module import Pretraining
from byol.training.preparation import prepare_data

BATCH = 64


def trained(count: int, steps: int) -> dict[str, float]:
    """Return seconds to the first step, seconds a step after that, and bytes beyond the images."""
    images = torch.randint(0, 256, (1000, 3, 32, 32), dtype=torch.uint8).repeat(count // 1000, 1, 1, 1)
    net, _ = network("resnet8_16", 32)
    starts: list[float] = []
    step = Pretraining.optimizer_step  # what is compiled before the first one runs the rest of a step

    def noted(*arguments: Any, **more: Any) -> None:
        starts.append(time.perf_counter())
        step(*arguments, **more)

    before, began = resident("VmRSS"), time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stderr(io.StringIO()),
        mock.patch.object(Pretraining, "optimizer_step", noted),
    ):
        run = byol.pretrain(
            images,
            net,
            out=f"{folder}/run",
            devices=1,
            image_size=32,
            preset="small",
            batch_size=BATCH,
            epochs=f"{steps}st",
            log_every=f"{steps // 3}st",
            projection_hidden_size=512,
            knn_every="0",
            holdout=0,
            optimizer="sgd",
            warmup="0",
            logger="none",
        )
        last = run.metrics()[-1]
    return {
        "start_up": starts[0] - began,
        "seconds_per_step": BATCH / last["images_per_second"],
        "data_wait": last["data_wait"],
        "bytes": resident("VmHWM") - before,
        "image_bytes": images.nbytes,
    }


def listed(folder: Path) -> dict[str, float]:
    """Return the seconds that opening a folder of images takes, and the bytes that its names need."""
    before, began = resident("VmRSS"), time.perf_counter()
    data = prepare_data(f"folder:{folder}", PretrainConfig())
    data.identity()
    return {"start_up": time.perf_counter() - began, "bytes": resident("VmRSS") - before}


def workers_rate(folder: Path) -> dict[str, float]:
    """Return the images per second that one core decodes and cuts two 224 px crops of."""
    from byol.data.batches import BatchPlan, streamed_batches
    from byol.data.source import open_source

    images = open_source(f"folder:{folder}").train
    plan = BatchPlan(len(images), len(images))
    seconds = []
    for position in range(3):
        began = time.perf_counter()
        list(streamed_batches(images, plan, PRESETS["imagenet"], 224, position, position + 1, num_workers=0))
        seconds.append(time.perf_counter() - began)
    return {"images_per_second": len(images) / min(seconds)}


def resident(what: str) -> int:
    """Return bytes of this process in memory: VmRSS now, VmHWM the most so far."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, help="train on so many, a multiple of 1000")
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument("--folder", type=Path, help="open this folder")
    parser.add_argument("--decode", type=Path, help="decode and cut the images of this folder on one core")
    options = parser.parse_args()
    if options.images:
        set_up_torch(None)
        work = lambda: trained(options.images, options.steps)  # noqa: E731
    else:
        set_up_torch(1)
        work = lambda: listed(options.folder) if options.folder else workers_rate(options.decode)  # noqa: E731
    take_turns(work, lambda work: work())


if __name__ == "__main__":
    main()
