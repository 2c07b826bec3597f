"""Compile a step before the clock runs, and leave no trace of it."""

import sys
from copy import deepcopy

import lightning as L
import torch

from byol.data.batches import Batch
from byol.training.module import Pretraining
from byol.training.processes import is_first_process
from byol.training.view_makers import ResidentViews


def needs_warm_up(module: Pretraining) -> bool:
    """Say whether a first step takes much longer than others: where it is compiled, or not on a CPU."""
    return module.compiled or module.device.type != "cpu"


def warm_up(trainer: L.Trainer, module: Pretraining, may_run_eagerly: bool = False) -> None:
    """Run views, networks and backward once on dummy data, as every step does, but for the optimizer's part.

    No weight moves. What a forward pass changes (batch statistics, sums of the watch, random state) is put
    back; gradients are dropped. It is the module itself that runs: what is compiled for a copy serves no
    other. Where compiling fails (of what it needs some is found by trying only), a warning says so, and it is
    tried once more with the views as they are, then with nothing compiled; without `may_run_eagerly` the
    error is raised.
    """
    parts = (module.learner, module.watch)
    before = [deepcopy(part.state_dict()) for part in parts]
    with torch.random.fork_rng(devices=[module.device] if module.device.type == "cuda" else []):
        _run_as_compiled_as_possible(trainer, module, may_run_eagerly)
    for part, state in zip(parts, before, strict=True):
        part.load_state_dict(state)
    module.zero_grad()


def _run_as_compiled_as_possible(trainer: L.Trainer, module: Pretraining, may_run_eagerly: bool) -> None:
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    ways_out = [
        ("trying again with uncompiled views", module.make_views.run_eagerly),
        ("training goes on uncompiled", module.run_eagerly),
    ]
    for what, run_eagerly in ways_out if may_run_eagerly else ():
        try:
            _run_once(trainer, module)
            return
        except TorchDynamoException as error:
            cause = str(getattr(error, "inner_exception", error)).strip().partition("\n")[0]
            if is_first_process():
                print(f"warning: compiling failed ({cause}): {what}", file=sys.stderr)
            run_eagerly()
    _run_once(trainer, module)


def _run_once(trainer: L.Trainer, module: Pretraining) -> None:
    loss = trainer.strategy.training_step(dummy_batch(module), 0)
    assert isinstance(loss, torch.Tensor)
    loss.backward()


def dummy_batch(module: Pretraining) -> Batch:
    """Return a batch of the shape of every other: of the first image only, or of black ones."""
    count, device = module.plan.micro_batch_size, module.device
    labels = None
    if module.online_probe is not None:
        labels = torch.zeros(count, dtype=torch.int64, device=device)
    if isinstance(module.make_views, ResidentViews):
        return Batch(0, torch.zeros(count, dtype=torch.int64, device=device), labels)
    size, channels = module.learner.image_size, module.learner.backbone.channels
    crops = torch.zeros(count, 2, channels, size, size, dtype=torch.uint8, device=device)
    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0], device=device).repeat(count, 2, 1)  # whole images
    return Batch(0, crops, labels, boxes, torch.zeros(count, 2, dtype=torch.bool, device=device))
