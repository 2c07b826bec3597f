import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.data.images import Subset
from byol.data.source import Source
from byol.errors import UserError
from byol.evaluation import fcn
from byol.evaluation.dense_task import DenseTask, divide_dense, masks_of
from byol.evaluation.fcn import FineTuning, SegmentationNetwork, _loss, finetune_fcn
from byol.evaluation.pixel_metrics import mean_iou, pixel_confusion
from byol.evaluation.supervised import Setting
from tests.scenes import scenes


def network(seed: int = 0) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1)),
            *(nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
    preprocess = Preprocess(24, mean=(0.4,) * 3, std=(0.2,) * 3)
    return Backbone(net, 24, channels=3, preprocess=preprocess).eval()


@pytest.fixture(scope="module")
def task() -> DenseTask:
    return divide_dense(Source("x", scenes(48), scenes(12, seed=1), validation=scenes(8, seed=2)), 0.1)


def test_loss_is_the_mean_over_pixels_that_are_not_void() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    classes = torch.randint(0, 4, (2, 9, 13), generator=generator)
    upsampled = F.interpolate(logits, (9, 13), mode="bilinear").log_softmax(dim=1)
    values = [
        -upsampled[b, classes[b, y, x], y, x]
        for b in range(2)
        for y in range(9)
        for x in range(13)
        if classes[b, y, x] != 3
    ]
    assert float(_loss(logits, classes, 3).detach()) == pytest.approx(
        float(sum(values).detach()) / len(values)
    )
    nothing = _loss(logits, torch.full_like(classes, 3), 3)
    nothing.backward()
    assert nothing == 0 and (logits.grad == 0).all()


def test_it_learns_chooses_and_leaves_the_backbone_alone(task: DenseTask) -> None:
    backbone, lines = network(), []
    before = copy.deepcopy(backbone.state_dict())
    grid = [Setting(1e-6, 1), Setting(0.8, 20)]
    tuning = FineTuning(backbone, task)
    tuned, settings = finetune_fcn(tuning, grid, lines.append)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not backbone.training and len(lines) == 2 and "on validation" in lines[0]
    assert (settings["lr"], settings["epochs"], settings["batch_size"]) == (0.8, 20, 16)
    reached = [entry["validation"] for entry in settings["grid"]]
    assert reached[1] > 0.7 > reached[0]
    predictions = list(tuning.predictions(tuned, task.scored))
    assert predictions[0].shape == (24, 32) and predictions[0].dtype == torch.uint8
    iou = mean_iou(pixel_confusion(predictions, masks_of(task.scored), task.classes))
    assert iou == pytest.approx(reached[1], abs=0.15)


def test_a_fit_is_the_same_every_time_and_draws_nothing_from_outside(task: DenseTask) -> None:
    torch.manual_seed(5)
    first = FineTuning(network(), task).fitted(Setting(0.3, 1))
    drawn = torch.rand(())
    torch.manual_seed(5)
    assert drawn == torch.rand(())
    second = FineTuning(network(), task).fitted(Setting(0.3, 1))
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    other = FineTuning(network(), task, seed=1).fitted(Setting(0.3, 1))
    assert not torch.equal(first.head[0].weight, other.head[0].weight)


def test_one_that_diverges_is_not_chosen_and_all_of_them_is_an_error(task: DenseTask) -> None:
    few = replace(task, train=Subset(task.train, range(16)))
    lines: list[str] = []
    _, settings = finetune_fcn(FineTuning(network(), few), [Setting(1e30, 2), Setting(0.1, 1)], lines.append)
    assert settings["lr"] == 0.1
    assert settings["grid"][0]["validation"] is None and "2 epochs, diverged (" in lines[0]
    assert 0 <= settings["grid"][1]["validation"] <= 1
    with pytest.raises(UserError, match="diverged: give lower --finetune-rates"):
        finetune_fcn(FineTuning(network(), few), [Setting(1e30, 2)], print)


def test_weights_decay_as_in_torchvision_s_references(
    task: DenseTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(logits: Tensor, classes: Tensor, void: int) -> Tensor:
        return 0 * logits.sum()

    monkeypatch.setattr(fcn, "_loss", nothing)
    few = FineTuning(network(), replace(task, train=Subset(task.train, range(16))))
    start, end = (few.fitted(Setting(rate, 1)).head[0].weight for rate in (0.0, 0.5))
    torch.testing.assert_close(end, start * (1 - 0.5 * 16 / 256 * 1e-4), rtol=2e-7, atol=0)


def test_weights_that_were_broken_before_are_not_blamed_on_the_rate(task: DenseTask) -> None:
    broken = network()
    with torch.no_grad():
        next(broken.parameters()).fill_(math.inf)
    with pytest.raises(UserError, match="weights of the backbone are not finite: nothing"):
        finetune_fcn(FineTuning(broken, task), [Setting(0.1, 1)], print)


def test_a_network_of_one_size_gets_images_of_that_size() -> None:
    import timm

    net = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=0
    )
    preprocess = Preprocess(32, mean=(0.5,) * 3, std=(0.5,) * 3)
    backbone = Backbone(net, 32, channels=3, preprocess=preprocess)
    task = divide_dense(Source("x", scenes(16, 24, 40), scenes(2, 24, 40)), 0.1)
    tuning = FineTuning(backbone, task)
    assert tuning._crop_settings().size == (32, 32) and tuning._crop_settings().squeezed
    fitted = tuning.fitted(Setting(0.1, 1))
    assert fitted(torch.zeros(2, 3, 32, 32)).shape == (2, 3, 4, 4)
    assert [found.shape for found in tuning.predictions(fitted, task.scored)] == [(24, 40)] * 2


def test_the_head_is_torchvisions() -> None:
    from torchvision.models.segmentation.fcn import FCNHead

    network_ = SegmentationNetwork(network(), 3, seed=0)
    assert isinstance(network_.head, FCNHead) and network_.head[4].out_channels == 3
