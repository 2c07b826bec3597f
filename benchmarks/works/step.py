"""One optimizer step of BYOL as a library does it, on two views that are there already.

Equal for all: the network, its precision, the heads (4096 wide, 256 out), SGD with momentum, and the
passes. The rest is each library's own, and as its documentation shows it.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from networks import DEVICE, network, precise
from torch import Tensor
from turn import memory, seconds, set_up_torch, take_turns

Step = Callable[[], None]
Made = tuple[Step, torch.optim.SGD]


def optimizer(parameters: object) -> torch.optim.SGD:
    """Return what all use."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)  # type: ignore[arg-type]


def surroundings(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Return what `byol pretrain` trains in; for the others, and with `--own-loop`, nothing."""
    if options.library != "byol" or options.own_loop:
        return nullcontext()
    from byol.allocation import memory_kept

    return memory_kept()


def byol_step(options: argparse.Namespace, views: tuple[Tensor, Tensor]) -> Made:
    """Ours: `--directions together` holds both for backward, `concatenated` makes one pass of both views."""
    import byol

    net, _ = network(options.backbone, options.size)
    learner = byol.BYOL(
        net, options.size, hidden_layer=None, concatenate_views=options.directions == "concatenated"
    )
    learner.to(memory_format=torch.channels_last)
    stepper = optimizer(learner.online_parameters())
    first, second = (view.contiguous(memory_format=torch.channels_last) for view in views)
    compare = learner.compare if options.directions == "together" else learner.compare_in_turn
    if options.compile:
        for part in (learner.online, learner.predictor, learner.target):
            assert part is not None
            part.compile(dynamic=False)  # as `byol pretrain` does

    def step() -> None:
        stepper.zero_grad()
        with precise(options.precision):
            loss = compare(first, second).loss
        loss.backward()
        stepper.step()
        learner.update_moving_average()

    return step, stepper


def lightly_step(options: argparse.Namespace, views: tuple[Tensor, Tensor]) -> Made:
    """Return lightly's parts, put together as its BYOL example puts them."""
    from lightly_byol import LightlyBYOL, train_step

    learner = LightlyBYOL(*network(options.backbone, options.size), 4096, options.precision).to(DEVICE)
    if options.channels_last:
        learner.to(memory_format=torch.channels_last)
        views = tuple(view.contiguous(memory_format=torch.channels_last) for view in views)  # type: ignore
    compare = torch.compile(learner) if options.compile else learner
    stepper = optimizer(learner.trained())
    return lambda: train_step(compare, stepper, *views), stepper


def byol_pytorch_step(options: argparse.Namespace, views: tuple[Tensor, Tensor]) -> Made:
    """Return byol-pytorch's learner, which concatenates the views, without its own augmentations."""
    from byol_pytorch import BYOL

    net, _ = network(options.backbone, options.size)
    first, second = views
    learner = BYOL(
        net,
        image_size=options.size,
        hidden_layer=-1,
        augment_fn=lambda images: images if len(images) != len(first) else first,
        augment_fn2=lambda images: images if len(images) != len(first) else second,
        use_simplicial_embeddings=False,
    )
    stepper = optimizer(p for p in learner.parameters() if p.requires_grad)

    def step() -> None:
        with precise(options.precision):
            loss = learner(first)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        learner.update_moving_average()

    return step, stepper


STEPS = {"byol": byol_step, "lightly": lightly_step, "byol-pytorch": byol_pytorch_step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=STEPS, required=True)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--directions", choices=["in-turn", "together", "concatenated"], default="in-turn")
    parser.add_argument("--channels-last", action="store_true", help="lightly in the layout that ours has")
    parser.add_argument("--own-loop", action="store_true", help="ours without what byol pretrain adds")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    options = parser.parse_args()
    set_up_torch(None)
    torch.manual_seed(0)
    views = torch.randn(2, options.batch, 3, options.size, options.size).to(DEVICE).unbind()
    step, stepper = STEPS[options.library](options, views)
    with surroundings(options):
        # Without gradients at first, wherever in its step a library sets them to zero.
        # A GPU has work left from the step before, as in training, when the host begins the next.
        timed = partial(seconds, times=10 if DEVICE.type == "cuda" else 1)
        take_turns(step, partial(memory, before=stepper.zero_grad) if options.memory else timed)


if __name__ == "__main__":
    main()
