"""The uses that byol-pytorch documents, but for the import line and smaller: wrapper, SimSiam, kornia."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kornia
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import byol.augment.views
from byol import BYOL

MakeNet = Callable[[], nn.Sequential]
HEADS = {"projection_size": 5, "projection_hidden_size": 12}


@pytest.mark.parametrize("momentum", [True, False])
def test_the_documented_loop(momentum: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All parameters to the optimizer, images of noise outside [0,1], and the network saved as it is."""
    monkeypatch.setattr(byol.augment.views, "_range_checked", False)
    torch.manual_seed(0)
    resnet = models.resnet18()
    fresh = copy.deepcopy(resnet)

    learner = BYOL(
        resnet, image_size=32, hidden_layer="avgpool", use_momentum=momentum, projection_hidden_size=64
    )
    before = copy.deepcopy(learner.state_dict())

    opt = torch.optim.Adam(learner.parameters(), lr=3e-4)

    def sample_unlabelled_images() -> Tensor:
        return torch.randn(4, 3, 32, 32)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            images = sample_unlabelled_images()
            loss = learner(images)
            opt.zero_grad()
            loss.backward()
            opt.step()
            learner.update_moving_average()

    torch.save(resnet.state_dict(), tmp_path / "improved-net.pt")
    assert ["float images should lie in [0,1]" in str(warning.message) for warning in told] == [True]
    fresh.load_state_dict(torch.load(tmp_path / "improved-net.pt"), strict=True)
    for name, value in fresh.named_parameters():
        assert torch.equal(value, before[f"online.backbone.net.{name}"]) is name.startswith("fc."), name


def test_embeddings_are_those_of_the_network(make_net: MakeNet) -> None:
    learner = BYOL(make_net(), image_size=8, hidden_layer=-2, **HEADS)
    imgs = torch.randn(2, 3, 8, 8)
    projection, embedding = learner(imgs, return_embedding=True)
    assert projection.shape == (2, 5) and embedding.shape == (2, 6)


class Kept(nn.Module):
    """Runs a pipeline, and keeps what went in and came out."""

    def __init__(self, pipeline: nn.Module) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        output = self.pipeline(images)
        self.seen.append((images.clone(), output.clone()))
        return output


def flips() -> nn.Module:
    return nn.Sequential(kornia.augmentation.RandomHorizontalFlip())


def flips_and_blur() -> nn.Module:
    return nn.Sequential(
        kornia.augmentation.RandomHorizontalFlip(), kornia.filters.GaussianBlur2d((3, 3), (1.5, 1.5))
    )


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("two", [False, True], ids=["augment_fn", "augment_fn and augment_fn2"])
def test_kornias_augmentations_alone_make_the_views(two: bool, compiled: bool, make_net: MakeNet) -> None:
    """uint8 comes in as floats in [0,1]; what comes out goes into the networks, and nothing is added."""
    torch.manual_seed(0)
    first, second = Kept(flips()), Kept(flips_and_blur())
    settings: dict[str, Any] = {"augment_fn": first, **({"augment_fn2": second} if two else {}), **HEADS}
    learner = BYOL(make_net(), image_size=8, hidden_layer=-2, **settings)
    reference = copy.deepcopy(learner)
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    model = torch.compile(learner, backend="aot_eager") if compiled else learner
    loss = model(images)
    loss.backward()
    views = [*first.seen, *second.seen]
    assert len(views) == 2
    for given, _ in views:
        assert torch.equal(given, images.float() / 255)
    torch.testing.assert_close(loss, reference(views[0][1], views[1][1]))
    flipped = [bool(torch.equal(view, image)) for image, view in zip(*views[0], strict=True)]
    assert True in flipped and False in flipped  # each image has a draw of its own
    assert not torch.equal(views[0][1], views[1][1])


def test_kornias_augmentations_in_the_trainer(make_net: MakeNet, tmp_path: Path) -> None:
    net = make_net()
    trainer = byol.BYOLTrainer(
        net,
        dataset=byol.MockDataset(12, 8),
        image_size=12,
        hidden_layer=-2,
        learning_rate=3e-4,
        num_train_steps=2,
        batch_size=4,
        checkpoint_folder=str(tmp_path),
        byol_kwargs={"augment_fn": flips(), "augment_fn2": flips_and_blur(), **HEADS},
    )
    trainer()
    assert not torch.equal(net[0].weight, make_net()[0].weight)
