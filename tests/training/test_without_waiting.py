"""A step on a GPU, without one: on tensors that know their device and shape but hold no numbers.

Whatever would make the host wait for the device (reading a number, choosing by one) fails on them, and so
does a tensor that stands on the wrong device. Backward needs a real device and is not part of this.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from byol.augment import views
from byol.augment.presets import PRESETS
from byol.core.base_learner import Learner
from byol.core.cifar_resnet import CifarResNet
from byol.core.learner import BYOL
from byol.core.pixel_learner import PixelCL
from byol.data.batches import Batch, BatchPlan
from byol.training.module import OptimizerSettings, Pretraining
from byol.training.online_probe import OnlineProbe
from byol.training.view_makers import ResidentViews, StreamedViews
from tests.host_reads import NoBlockingCopies

PLAN = BatchPlan(count=64, batch_size=32)
INSTANCE_METHODS: dict[str, dict[str, Any]] = {
    "byol": {},
    "simsiam": {"use_momentum": False},
    "byol, statistics averaged": {"target_statistics": "average"},
    "byol, gathered": {"gather_projections": True},
    "byol, concatenated": {"concatenate_views": True},
    "byol, simplices": {"simplicial_embeddings": True},
}
PIXEL_METHODS: dict[str, dict[str, Any]] = {
    "pixpro": {"alpha": 0.0},
    "pixpro with instances": {"alpha": 1.0, "ppm_num_layers": 2},
    "pixcontrast": {"alpha": 0.0, "use_pixpro": False},
    "pixcontrast with instances": {"alpha": 1.0, "use_pixpro": False},
}
METHODS = (*INSTANCE_METHODS, *PIXEL_METHODS)


def learner_of(method: str, normalization: Any = "batch") -> Learner:
    net = CifarResNet(1, 16)
    if method in PIXEL_METHODS:
        settings = {**PIXEL_METHODS[method], "normalization": normalization}
        return PixelCL(net, 32, "layer3", None, 8, 16, **settings)
    return BYOL(net, 32, None, 8, 16, normalization=normalization, **INSTANCE_METHODS[method])


def module_of(learner: Learner, make_views: nn.Module, optimizer: str = "lars") -> Pretraining:
    settings = OptimizerSettings(optimizer, 0.1, 1e-4, False, 0, 10)  # type: ignore[arg-type]
    probe = OnlineProbe(learner.backbone.num_features, 10)
    return Pretraining(learner, make_views, settings, PLAN, online_probe=probe)


def resident(preset: str, learner: Learner) -> ResidentViews:
    images = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    return ResidentViews(images, PRESETS[preset], 32, PLAN, boxes=learner.takes_views)


def moved_to_a_gpu(module: nn.Module) -> None:
    """Replace all parameters and buffers by ones on a GPU, with gradients, in a fake mode."""
    for child in module.modules():
        for store in (child._parameters, child._buffers):
            for name, tensor in store.items():
                if tensor is not None:
                    store[name] = on_a_gpu(tensor)


def on_a_gpu(tensor: Tensor) -> Tensor:
    moved = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
    if not isinstance(tensor, nn.Parameter):
        return moved
    parameter = nn.Parameter(moved, tensor.requires_grad)
    parameter.grad = torch.empty_like(moved) if tensor.requires_grad else None
    return parameter


@pytest.fixture
def no_backward(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Tensor, "backward", lambda self: None)
    views._column.cache_clear()
    with torch.library._scoped_library("aten", "IMPL") as library:
        # torch has no form of this kernel for tensors without numbers; it gives nothing back.
        library.impl("_fused_sgd_", lambda *tensors, **settings: None, "Meta")
        yield
    views._column.cache_clear()  # its tensors have no numbers


@pytest.mark.usefixtures("no_backward")
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_a_step_never_waits(preset: str, normalization: str) -> None:
    learner = learner_of("byol", normalization)
    run_steps(module_of(learner, resident(preset, learner)), torch.zeros(32, dtype=torch.int64))


@pytest.mark.usefixtures("no_backward")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_any_method_never_waits(method: str, precision: str) -> None:
    learner = learner_of(method)
    module = module_of(learner, resident("small", learner))
    run_steps(module, torch.zeros(32, dtype=torch.int64), precision)


@pytest.mark.usefixtures("no_backward")
@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
@pytest.mark.parametrize("method", ["byol", "pixpro"])
def test_a_step_on_crops_never_waits(optimizer: str, method: str) -> None:
    crops = torch.zeros(32, 2, 3, 32, 32, dtype=torch.uint8)
    run_steps(module_of(learner_of(method), StreamedViews(PRESETS["imagenet"], PLAN), optimizer), crops)


def test_waiting_would_be_noticed() -> None:
    with FakeTensorMode(), pytest.raises(Exception, match="_local_scalar_dense"):
        float(torch.zeros((), device="cuda"))


@pytest.mark.parametrize(
    "wait",
    [
        lambda there: torch.tensor([1.0, 2.0], device="cuda"),
        lambda there: torch.zeros(4).to("cuda"),
        lambda there: there[torch.arange(2)],
        lambda there: there.copy_(torch.zeros(4)),
        lambda there: there.cpu(),
        lambda there: there.to("cpu", non_blocking=True),
    ],
)
def test_copies_that_wait_would_be_noticed(wait: Any) -> None:
    with FakeTensorMode():
        there = torch.zeros(4, device="cuda")
        with NoBlockingCopies() as copies:
            here = torch.empty(8, pin_memory=True)
            here[:4].to("cuda", non_blocking=True)
            there.copy_(here[4:], non_blocking=True)
            there.mul_(torch.tensor(2.0)).add_(1.0)
            assert copies.to_gpu == 2
            with pytest.raises(AssertionError, match=r"\[5\] goes to the GPU from memory that is not pinned"):
                torch.zeros(5).to("cuda", non_blocking=True)
            with pytest.raises(AssertionError, match="waits for a copy between cpu and cuda"):
                wait(there)


def run_steps(module: Pretraining, images: Tensor, precision: str = "fp32") -> None:
    """Take two steps; in the first one, constants may be sent to the GPU. The second sends what it was given,
    two tensors or four, and all that it draws at once."""
    with FakeTensorMode():
        moved_to_a_gpu(module)
        optimizer = module.configure_optimizers()
        take_a_step(module, optimizer, pinned_batch(images), precision)
        with NoBlockingCopies() as copies:
            take_a_step(module, optimizer, pinned_batch(images), precision)
        assert copies.to_gpu == (3 if images.ndim == 1 else 5)


def pinned_batch(images: Tensor) -> Batch:
    """Return what the loaders give, in the host's memory: indices, or crops and where they come from."""

    def pinned(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    batch = Batch(0, pinned(*images.shape, dtype=images.dtype), pinned(PLAN.batch_size))
    if images.ndim == 1:
        return batch
    boxes, flipped = pinned(32, 2, 4, dtype=torch.float32), pinned(32, 2, dtype=torch.bool)
    return batch._replace(boxes=boxes, flipped=flipped)


def take_a_step(module: Pretraining, optimizer: Any, batch: Batch, precision: str) -> None:
    batch = move_data_to_device(batch, torch.device("cuda"))  # as Lightning does
    with in_bf16() if precision == "bf16" else nullcontext():  # the optimizer is outside, as in Lightning
        loss = module.training_step(batch, 0)
    assert loss.device.type == "cuda" and loss.dtype == torch.float32
    latest = module.watch.latest
    assert latest is not None and (latest.projection.dtype == torch.bfloat16) == (precision == "bf16")
    assert latest.target.device.type == latest.representation.device.type == "cuda"
    for parameter in (*module.learner.online_parameters(), *module.online_probe.parameters()):  # type: ignore
        parameter.grad = torch.empty_like(parameter)
    module.optimizer_step(0, 0, optimizer, lambda: loss)


@contextmanager
def in_bf16() -> Iterator[None]:
    """Be `torch.autocast("cuda", torch.bfloat16)`, which turns itself off where there is no GPU."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()
