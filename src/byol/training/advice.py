"""What a user should hear before a run: it will work, but perhaps not as it was meant."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from byol.config import PretrainConfig
from byol.core.backbone import Backbone
from byol.data.batches import BatchPlan
from byol.data.decoders import enough_shared_memory
from byol.data.folder import unread_kinds
from byol.data.images import natural_side, typical_side
from byol.data.workers import more_shared_memory
from byol.errors import listed
from byol.machine import shared_memory
from byol.training.compilation import not_compiled_message
from byol.training.preparation import PreparedData, worker_count
from byol.training.processes import launch_of
from byol.training.resolution import batch_bytes, decoders, view_size

LARGE = 5_000_000
"""Parameters of a backbone that is no longer quick on a CPU: a ResNet-18 has 11 million."""

SMALL_BATCH = 512
FEW_STEPS = range(100, 10_000)
"""In which LARS with the published rates moves little (docs/log.md); in fewer nothing learns, it is a try."""


def advice(
    config: PretrainConfig, data: PreparedData, backbone: Backbone, steps: int, own: bool
) -> Iterator[str]:
    """Yield a line for each thing of note.

    Args:
        config: of the run.
        data: of the run.
        backbone: of the run.
        steps: of the run.
        own: whether it is a network of the user's own, rather than one by name.
    """
    if data.skipped:
        yield _skipped_message(data.skipped)
    if data.passed_over:
        yield f"left alone {unread_kinds(data.passed_over)}"
    by_default = config.image_size == natural_side(data.pretraining, data.images) and config.view_size is None
    if by_default and (line := _enlarging_message(view_size(config), typical_side(data.pretraining))):
        yield line
    if own and backbone.hidden_layer is None and (layer := _last_linear(backbone.net)):
        yield (
            f"the representation is what layer '{layer}' puts out, {backbone.num_features} numbers; if that "
            "is a classifier, pass hidden_layer (-2: the layer before it)"
        )
    if config.optimizer == "lars" and config.batch_size <= SMALL_BATCH and steps in FEW_STEPS:
        yield (
            f"{steps} steps of LARS, which is made for long runs with large batches: in so few --optimizer "
            "adamw learns more, or give more --epochs"
        )
    if (message := not_compiled_message(config)) is not None:
        yield message
    if not torch.cuda.is_available() and sum(p.numel() for p in backbone.net.parameters()) > LARGE:
        yield _large_network_message(view_size(config))


def decoding_advice(config: PretrainConfig, data: PreparedData, plan: BatchPlan) -> Iterator[str]:
    """Yield a line where fewer processes decode than were to."""
    asked, working = worker_count(config), decoders(config, plan)[0]
    if data.images is None and working < asked:
        who = (
            f"{working} of {asked} processes decode" if working else "the training process itself decodes the"
        )
        enough = enough_shared_memory(asked, batch_bytes(config, plan), launch_of(config).devices)
        yield (
            f"warning: {who} images, for which there is too little shared memory (/dev/shm, "
            f"{shared_memory() >> 20} MiB): training will wait for data; "
            + more_shared_memory(math.ceil(enough / 2**30))
        )


def _skipped_message(names: tuple[str, ...]) -> str:
    where = " (all in env.json)" if len(names) > 5 else ""
    plural = "image" if len(names) == 1 else "images"
    return f"left out {len(names)} unreadable {plural}: {listed(names)}{where}"


def _large_network_message(side: int) -> str:
    faster = (
        "small ones learn in minutes: --backbone resnet8_32 (see --recipe cifar10-cpu)"
        if side <= 64
        else "a small one on small images is many times as fast: --recipe photographs-cpu"
    )
    return f"no GPU was found, and this network is a large one for a CPU; {faster}"


def _enlarging_message(views: int, side: int) -> str | None:
    """Return what to say where most views are made by enlarging whole images."""
    fitting = 32 * math.ceil(side / 32)
    if views < 2 * side or views <= fitting:
        return None
    return (
        f"the images' shorter sides are about {side} pixels, and views of {views} enlarge them: "
        f"--image-size {fitting} would be nearer"
    )


def _last_linear(net: nn.Module) -> str | None:
    """Return the name of the last layer where it is a linear one, and not the only one."""
    leaves = [(name, part) for name, part in net.named_modules() if not any(part.children())]
    name, last = leaves[-1]
    return name if isinstance(last, nn.Linear) and len(leaves) > 1 else None
