"""Evaluation on a GPU, without one: on tensors that know their device and hold no numbers, whatever meets
on two devices fails, and so does numpy on a tensor that is not on the CPU."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from byol.augment import views
from byol.augment.evaluation import preprocess_for
from byol.core.backbone import Backbone
from byol.core.cifar_resnet import CifarResNet
from byol.data.images import TensorImages
from byol.evaluation import augmented, logistic, pixel_head
from byol.evaluation.augmented import RandomCrops, augmented_training
from byol.evaluation.baselines import CentredPixels
from byol.evaluation.classifier import Classifier
from byol.evaluation.dense_features import WholeImages, map_batches, pixel_classes
from byol.evaluation.fcn import SegmentationNetwork, _loss
from byol.evaluation.features import extract
from byol.evaluation.knn import knn_scores
from byol.evaluation.linear import clean_training, fit_heads
from byol.evaluation.logistic import PrincipalAxes, Standardization
from byol.evaluation.pixel_head import fit_pixel_heads
from byol.evaluation.problem import Problem, predicted
from byol.evaluation.scaled_crops import CropSettings, ScaledCrops
from byol.randomness import epoch_order
from tests.host_reads import NoBlockingCopies
from tests.training.test_without_waiting import moved_to_a_gpu

VOID = 255


def to(module: nn.Module, *_: Any, **__: Any) -> nn.Module:
    moved_to_a_gpu(module)
    return module


@pytest.fixture(autouse=True)
def without_numbers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Tensor, "backward", lambda self: None)
    monkeypatch.setattr(nn.Module, "to", to)
    monkeypatch.setattr(nn.utils, "skip_init", lambda kind, *sizes: kind(*sizes))
    forget_what_is_kept()
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
    forget_what_is_kept()  # tensors without numbers


def forget_what_is_kept() -> None:
    views._column.cache_clear()
    epoch_order.cache_clear()


@pytest.fixture
def backbone(without_numbers: None) -> Backbone:
    made = Backbone(CifarResNet(1, 8), 32, preprocess=preprocess_for("small", 32, 3))
    made.prepare_feature_map()
    return made


@pytest.fixture
def images(without_numbers: None) -> Any:
    """Forty images of 40 x 48 pixels with labels and masks, as an image set."""
    made = TensorImages(torch.zeros(40, 3, 40, 48, dtype=torch.uint8))
    made.labels = torch.zeros(40, dtype=torch.int64)
    made.masks = torch.zeros(40, 40, 48, dtype=torch.uint8)  # type: ignore[assignment]
    return made


def is_on(device: str, *tensors: Tensor) -> bool:
    return all(tensor.device.type == device for tensor in tensors)


def test_features_arrive_on_the_cpu(backbone: Backbone, images: Any) -> None:
    assert backbone.preprocess is not None
    for network in (backbone, CentredPixels(torch.zeros(3 * 32 * 32)), Classifier(backbone, 3)):
        assert is_on("cpu", extract(network, backbone.preprocess, images, device="cuda").vectors)


@pytest.mark.parametrize("count", [60, 5000])
def test_knn(count: int) -> None:
    bank, queries = torch.zeros(count, 8, device="cuda"), torch.zeros(30, 8, device="cuda")
    scores = knn_scores(bank, torch.zeros(count, dtype=torch.int64), queries, 20, 0.1, 3)
    assert is_on("cuda", scores) and is_on("cpu", predicted(scores))


def test_linear_heads() -> None:
    vectors, labels, order = torch.zeros(40, 8), torch.zeros(40, dtype=torch.int64), torch.arange(40)
    problem = Problem(vectors, labels, order[:30], order[30:], vectors, 3)
    batches = clean_training(problem, 0, "cuda")(problem.fit)
    heads = fit_heads(batches, 30, (3, 8), (1.0, 0.1), 2, "cuda")
    assert is_on("cuda", *heads.scores(vectors.to("cuda")))


@pytest.mark.parametrize(("count", "width"), [(40, 8), (6, 8)])
def test_logistic_regression(count: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "float", lambda loss: 0.0, raising=False)
    vectors, labels = torch.zeros(count, width, device="cuda"), torch.zeros(count, dtype=torch.int64)
    axes = PrincipalAxes.of(Standardization.of(vectors)(vectors))
    rank = len(axes.variance)
    scale, start = torch.ones(rank + 1, device="cuda"), torch.zeros(3, rank + 1, device="cuda")
    objective = logistic._Objective(axes.turned, labels.to("cuda"), 0.1, scale, start)
    objective()
    assert objective.parameters.grad is not None and is_on("cuda", objective.parameters.grad)
    assert is_on("cuda", axes.regression(start).scores(vectors))


def test_crops_of_labelled_images(backbone: Backbone, images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmented, "Subset", lambda images, _: images)
    assert backbone.preprocess is not None
    classifier = Classifier(backbone, 3).to("cuda")
    for view, labels in RandomCrops(images, backbone.preprocess, device="cuda")(0, [torch.arange(16)]):
        assert is_on("cuda", view, labels, F.cross_entropy(classifier(view), labels))
    training = augmented_training(backbone, backbone.preprocess, images, device="cuda")
    assert all(is_on("cuda", *batch) for batch in training(torch.arange(40))(0))


def test_maps_and_masks(backbone: Backbone, images: Any) -> None:
    assert is_on("cuda", *map_batches(backbone, images, "cuda"))
    assert is_on("cuda", WholeImages(backbone)(images.images[:2].to("cuda")))
    network = SegmentationNetwork(backbone, 4, 0).to("cuda")
    crops = ScaledCrops(images, CropSettings((24, 32), ((0.5,) * 3, (0.5,) * 3), VOID), device="cuda")
    for crop, classes in crops(0, [torch.arange(16)]):
        logits = network(crop)
        assert is_on("cuda", _loss(logits, classes, VOID), pixel_classes(logits, (24, 32), VOID))


def test_pixel_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_head, "_some_places", lambda side, *_: slice(1, side, 2))
    monkeypatch.setattr(pixel_head, "_grouped", lambda *_: iter([batch]))
    there, here = torch.zeros(4, 24, 28, dtype=torch.uint8, device="cuda"), torch.Generator()
    batch = torch.zeros(4, 5, 6, 7, device="cuda"), there
    heads = fit_pixel_heads([torch.zeros(5, 6, 7)], [there[0].cpu()], 3, VOID, epochs=1, device="cuda")
    assert is_on("cuda", heads.weight, heads.bias)
    with NoBlockingCopies():
        assert is_on("cuda", pixel_head._losses(heads, iter([batch]), VOID, here))


def test_numpy_would_be_noticed() -> None:
    with pytest.raises(Exception, match="numpy"):
        nn.Linear(2, 2, device="cuda").weight.detach().numpy()
