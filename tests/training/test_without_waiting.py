"""A step on a GPU, without one: on tensors that know their device and shape but hold no numbers.

Whatever would make the host wait for the device (reading a number, choosing by one) fails on them, and so
does a tensor that stands on the wrong device. Backward needs a real device and is not part of this.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from byol.augment import views
from byol.augment.presets import PRESETS
from byol.core.cifar_resnet import CifarResNet
from byol.core.learner import BYOL
from byol.data.batches import Batch, BatchPlan
from byol.training.module import OptimizerSettings, Pretraining
from byol.training.online_probe import OnlineProbe
from byol.training.view_makers import ResidentViews, StreamedViews

PLAN = BatchPlan(count=64, batch_size=32)


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


def module_with(make_views: nn.Module, optimizer: str, normalization: str = "batch") -> Pretraining:
    learner = BYOL(CifarResNet(1, 16), 32, None, 8, 16, normalization=normalization)
    settings = OptimizerSettings(optimizer, 0.1, 1e-4, False, 0, 10)
    probe = OnlineProbe(learner.backbone.num_features, 10)
    return Pretraining(learner, make_views, settings, PLAN, online_probe=probe)


@pytest.fixture
def no_backward(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Tensor, "backward", lambda self: None)
    views._column.cache_clear()
    yield
    views._column.cache_clear()  # its tensors have no numbers


@pytest.mark.usefixtures("no_backward")
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_a_step_never_waits(preset: str, normalization: str) -> None:
    images = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    make_views = ResidentViews(images, PRESETS[preset], 32, PLAN)
    run_a_step(module_with(make_views, "lars", normalization), torch.zeros(32, dtype=torch.int64))


@pytest.mark.usefixtures("no_backward")
@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
def test_a_step_on_crops_never_waits(optimizer: str) -> None:
    crops = torch.zeros(32, 2, 3, 32, 32, dtype=torch.uint8)
    run_a_step(module_with(StreamedViews(PRESETS["imagenet"], PLAN), optimizer), crops)


def test_waiting_would_be_noticed() -> None:
    with FakeTensorMode(), pytest.raises(Exception, match="_local_scalar_dense"):
        float(torch.zeros((), device="cuda"))


def run_a_step(module: Pretraining, images: Tensor) -> None:
    with FakeTensorMode():
        moved_to_a_gpu(module)
        optimizer = module.configure_optimizers()
        labels = torch.empty(PLAN.batch_size, dtype=torch.int64, device="cuda")
        images = torch.empty(images.shape, dtype=images.dtype, device="cuda")
        boxes, flipped = images.new_zeros(32, 2, 4).float(), images.new_zeros(32, 2).bool()  # of crops
        batch = Batch(0, images, labels, boxes, flipped)
        loss = module.training_step(batch, 0)
        assert loss.device.type == "cuda"
        for parameter in (*module.learner.online_parameters(), *module.online_probe.parameters()):
            parameter.grad = torch.empty_like(parameter)
        module.optimizer_step(0, 0, optimizer, lambda: loss)
