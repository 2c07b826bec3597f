import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.data.folder import open_folder
from byol.data.images import Subset
from byol.data.source import Source
from byol.errors import UserError
from byol.evaluation import supervised
from byol.evaluation.augmented import RandomCrops
from byol.evaluation.classifier import Classifier
from byol.evaluation.supervised import (
    Setting,
    Supervision,
    batch_norm_momentum,
    batch_size,
    even_batches,
    steps_per_epoch,
)

MakeBackbone = Callable[..., Backbone]
INDICES = torch.arange(200, 300)


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def moved(before: dict[str, Tensor], network: nn.Module) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)}


class Reference:
    """The published fit of a convolution, a batch norm, ReLU and a linear classifier in float64."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        convolution, norm = backbone.net[0], backbone.net[1]
        head = torch.zeros(num_classes, backbone.num_features), torch.zeros(num_classes)
        tensors = (convolution.weight, convolution.bias, norm.weight, norm.bias, *head)
        self.weights = [tensor.detach().double().clone().requires_grad_() for tensor in tensors]
        self.velocity = [torch.zeros_like(weight) for weight in self.weights]
        self.mean, self.variance = norm.running_mean.double(), norm.running_var.double()

    def step(self, images: Tensor, labels: Tensor, rate: float, momentum: float) -> None:
        weight, bias, scale, shift, head, head_bias = self.weights
        maps = nn.functional.conv2d(images, weight, bias, padding=1)
        mean, variance = maps.mean(dim=(0, 2, 3)), maps.var(dim=(0, 2, 3), correction=0)
        normal = (maps - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        features = (normal * scale[:, None, None] + shift[:, None, None]).clamp(min=0).flatten(1)
        logits = features @ head.T + head_bias
        loss = -logits.log_softmax(dim=1)[range(len(labels)), labels].mean()
        gradients = torch.autograd.grad(loss, self.weights)
        count = maps.numel() / maps.shape[1]
        with torch.no_grad():
            self.mean = (1 - momentum) * self.mean + momentum * mean
            self.variance = (1 - momentum) * self.variance + momentum * variance * count / (count - 1)
            for index, gradient in enumerate(gradients):
                self.velocity[index] = 0.9 * self.velocity[index] + gradient
                self.weights[index] -= rate * (gradient + 0.9 * self.velocity[index])  # Nesterov


@pytest.fixture
def plain_backbone(preprocess: Preprocess) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
    return Backbone(net, 8, channels=1, preprocess=preprocess)


def test_a_fit_equals_the_published_one_written_out(
    plain_backbone: Backbone, digits: Source, preprocess: Preprocess
) -> None:
    reference = Reference(plain_backbone, 10)
    epochs, rate, size = 4, 0.4, 15  # 100 images: 7 batches of 14 or 15
    fitted = Supervision(plain_backbone, digits.train, 10, seed=3).fitted(INDICES, Setting(rate, epochs))
    crops, step = RandomCrops(Subset(digits.train, INDICES), preprocess, seed=3), 0
    for epoch in range(epochs):
        for views, labels in crops(epoch, even_batches(100, 3, epoch)):
            now = rate * size / 256 * (1 + math.cos(math.pi * step / 28)) / 2
            reference.step(views.double(), labels, now, 0.1)
            step += 1
    assert step == 28
    convolution, norm = fitted.backbone.net[0], fitted.backbone.net[1]
    head = fitted.head
    found = (convolution.weight, convolution.bias, norm.weight, norm.bias, head.weight, head.bias)
    # The bias before a batch norm has no effect: what it gets is rounding.
    for ours, theirs in zip(found, reference.weights, strict=True):
        torch.testing.assert_close(ours.double(), theirs.detach(), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_mean.double(), reference.mean, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var.double(), reference.variance, atol=2e-5, rtol=1e-4)
    assert float((head.weight.detach()).abs().max()) > 0.01


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.1), (100, 0.1), (101, 10 / 101), (2000, 0.005)])
def test_batch_norm_momentum_in_the_convention_of_pytorch(steps: int, momentum: float) -> None:
    # The paper's decay max(1 - 10 / s, 0.9), taken for PyTorch's momentum, would be 0.9 and more.
    assert batch_norm_momentum(steps) == pytest.approx(momentum)
    assert 1 - batch_norm_momentum(steps) == pytest.approx(max(1 - 10 / steps, 0.9))


def test_running_statistics_follow_that_momentum(
    plain_backbone: Backbone, digits: Source, preprocess: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "steps_per_epoch", lambda *_: 200)
    indices = torch.arange(400)
    fitted = Supervision(plain_backbone, digits.train, 10).fitted(indices, Setting(0.0, 1))
    expected = torch.zeros(6)
    with torch.no_grad():
        for views, _ in RandomCrops(Subset(digits.train, indices), preprocess)(0, even_batches(400, 0, 0)):
            batch_mean = plain_backbone.net[0](views).mean(dim=(0, 2, 3))
            expected = 0.95 * expected + 0.05 * batch_mean  # 10 / 200
    torch.testing.assert_close(fitted.backbone.net[1].running_mean, expected, atol=1e-5, rtol=1e-4)


def test_an_epoch_holds_every_image_once_in_even_batches() -> None:
    for count in (2, 17, 100, 2049, 50_000):
        order = even_batches(count, 0, 0)
        sizes = {len(rows) for rows in order}
        assert torch.equal(torch.cat(order).sort().values, torch.arange(count))
        assert max(sizes) == batch_size(count) <= 1024
        assert max(sizes) - min(sizes) <= 1
        assert len(order) == steps_per_epoch(count)
    assert not torch.equal(even_batches(100, 0, 0)[0], even_batches(100, 0, 1)[0])
    assert (batch_size(10), batch_size(500), batch_size(50_000)) == (10, 32, 1021)
    assert (batch_size(10, 4), batch_size(500, 40), batch_size(50_000, 128)) == (4, 32, 128)
    assert {len(rows) for rows in even_batches(1000, 0, 0, 24)} == {23, 24}


def test_fits_repeat_start_from_the_same_weights_and_leave_the_backbone_alone(
    backbone: Backbone, digits: Source
) -> None:
    before, state = snapshot(backbone), torch.get_rng_state()
    supervision = Supervision(backbone, digits.train, 10, seed=1)
    first = supervision.fitted(INDICES, Setting(0.1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again = supervision.fitted(INDICES, Setting(0.1, 2))
    assert not moved(snapshot(first), again)  # the tiny network has dropout
    assert not moved(before, backbone)
    assert moved(snapshot(first.backbone), backbone)
    assert backbone.net[1].momentum == 0.1
    other = Supervision(backbone, digits.train, 10, seed=2).fitted(INDICES, Setting(0.1, 2))
    assert moved(snapshot(first), other)
    assert not any(part.training for part in first.modules())


def test_what_is_frozen_stays_bit_for_bit(backbone: Backbone, digits: Source) -> None:
    before = snapshot(backbone.net)
    supervision = Supervision(backbone, digits.train, 10, freeze=("0", "1"))
    fitted = supervision.fitted(INDICES, Setting(0.5, 2))
    changed = moved(before, fitted.backbone.net)
    assert {name.split(".")[0] for name in changed} == {"4", "5"}
    assert {"5.running_mean", "5.num_batches_tracked", "4.weight"} <= changed
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    # Frozen batch norms use their running statistics in training, too.
    whole = Classifier(backbone, 10, ("1",)).train()
    assert [part.training for part in whole.backbone.net] == [True, False, *[True] * 6]
    with pytest.raises(UserError, match="no layer '9'"):
        Supervision(backbone, digits.train, 10, freeze=("9",)).fitted(INDICES, Setting(0.1, 1))


def test_scores_are_of_whole_images_in_eval_mode(
    backbone: Backbone, digits: Source, preprocess: Preprocess
) -> None:
    supervision = Supervision(backbone, digits.train, 10)
    fitted = supervision.fitted(INDICES, Setting(0.1, 1))
    before = snapshot(fitted)
    images = Subset(digits.train, torch.arange(40))
    sizes: list[int] = []
    hook = fitted.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    found = supervision.scores(fitted, images)
    hook.remove()
    assert sizes == [40], "one batch, not image by image"
    with torch.no_grad():
        expected = torch.cat([fitted(preprocess(images[index])[None]) for index in range(40)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not moved(before, fitted)


def test_photographs_are_read_as_they_come_whatever_the_workers(
    photographs: Path, make_backbone: MakeBackbone
) -> None:
    source = open_folder(str(photographs), 3)
    backbone = make_backbone(0, 3)
    backbone.preprocess = Preprocess(8, (0.5,) * 3, (0.25,) * 3)
    indices, fits = torch.arange(4, 24), []
    for num_workers in (0, 2):
        supervision = Supervision(backbone, source.train, 2, num_workers=num_workers)
        fits.append(supervision.fitted(indices, Setting(0.5, 3)))
    assert not moved(snapshot(fits[0]), fits[1])
    assert moved(snapshot(backbone), fits[0].backbone)
    assert supervision.scores(fits[0], source.train).shape == (24, 2)


def test_a_fit_that_diverges_ends_early(backbone: Backbone, digits: Source) -> None:
    fitted = Supervision(backbone, digits.train, 10).fitted(INDICES, Setting(1e38, 1000))
    assert not fitted.head.weight.isfinite().all()
    assert int(fitted.backbone.net[1].num_batches_tracked) < 100
