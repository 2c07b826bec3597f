"""`train_byol`: against the loop written out, with every optimizer that is handed all parameters."""

import copy
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import DataLoader, TensorDataset

import byol
from byol.training.errors import NonFiniteError

MakeLearner = Callable[..., byol.BYOL]
BATCHES = torch.rand(3, 4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def make_learner(make_net: Callable[[], nn.Sequential]) -> MakeLearner:
    """Return a function that makes a learner in float64, always from the same weights."""

    def make(**settings: Any) -> byol.BYOL:
        torch.manual_seed(4)
        defaults: dict[str, Any] = {"projection_size": 5, "projection_hidden_size": 12}
        return byol.BYOL(make_net().double(), 8, -2, **{**defaults, "augment_fn": same, **settings})

    return make


def same(image: Tensor) -> Tensor:
    """Leave images as they are: what happens then does not depend on chance."""
    return image


def written_out(learner: byol.BYOL, optimizer: Optimizer, epochs: int) -> None:
    """Train as the learner documents it."""
    for images in [*BATCHES] * epochs:
        loss = learner(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.update_moving_average()


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": lambda parameters: Adam(parameters, lr=0.01),
    "adamw, decay": lambda parameters: AdamW(parameters, lr=0.01, weight_decay=0.1),
    "sgd, momentum, decay": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
}


@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_is_the_loop_written_out_over_what_the_loss_trains(
    optimizer: str, momentum: bool, make_learner: MakeLearner
) -> None:
    """The optimizer is given the frozen target and an unused layer, too: it must move neither."""
    learner, expected = make_learner(use_momentum=momentum), make_learner(use_momentum=momentum)
    start = copy.deepcopy(learner.state_dict())
    returned = byol.train_byol(
        model=learner,
        train_dl=BATCHES,
        optimizer=OPTIMIZERS[optimizer](learner.parameters()),
        epochs=2,
        device="cpu",
    )
    written_out(expected, OPTIMIZERS[optimizer](expected.online_parameters()), epochs=2)
    assert returned is learner
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name], rtol=1e-9, atol=1e-12, msg=name)
        unused = "backbone.net.5." in name
        assert torch.equal(value, start[name]) is unused, name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_target_is_the_average_and_nothing_else(optimizer: str, make_learner: MakeLearner) -> None:
    learner = make_learner(moving_average_decay=0.9)
    assert learner.target is not None
    before = [parameter.clone() for parameter in learner.target.parameters()]
    byol.train_byol(learner, [BATCHES[0]], OPTIMIZERS[optimizer](learner.parameters()), 1, "cpu")
    triples = zip(before, learner.target.parameters(), learner.online.parameters(), strict=True)
    for start, target, online in triples:
        torch.testing.assert_close(target, 0.9 * start + 0.1 * online, rtol=1e-12, atol=1e-15)
        assert target.grad is None


def test_the_loss_is_told_as_the_mean_over_an_epoch(
    make_learner: MakeLearner, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = make_learner()
    with torch.no_grad():
        expected = sum(float(copy.deepcopy(learner)(images)) for images in BATCHES) / 3
    byol.train_byol(learner, BATCHES, SGD(learner.parameters(), lr=0.0), 2, "cpu")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [f"epoch {epoch}/2  loss {expected:.3f}" for epoch in (1, 2)]


def test_it_trains_in_training_mode_and_returns_an_encoder(make_learner: MakeLearner) -> None:
    learner = make_learner().eval()
    encoder = byol.train_byol(learner, BATCHES, Adam(learner.parameters(), lr=0.01), 1, torch.device("cpu"))
    assert int(encoder.backbone.net[1].num_batches_tracked) == 6
    assert not any(module.training for module in encoder.modules())
    state = copy.deepcopy(encoder.state_dict())
    projection, embedding = encoder(BATCHES[0], return_embedding=True)
    assert projection.shape == (4, 5) and embedding.shape == (4, 6)
    torch.testing.assert_close(encoder(BATCHES[0, :1], return_embedding=True)[1], embedding[:1])
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("labelled", [True, False])
def test_loaders_of_either_kind_and_a_last_batch_of_one(labelled: bool, make_learner: MakeLearner) -> None:
    images = torch.randint(0, 256, (9, 3, 10, 12), dtype=torch.uint8)
    tensors = (images, torch.arange(9)) if labelled else (images,)
    learner = make_learner(augment_fn=None).float()
    loader = DataLoader(TensorDataset(*tensors), batch_size=4, shuffle=True)
    byol.train_byol(learner, loader, Adam(learner.parameters(), lr=0.01), 2, "cpu")
    assert learner.target is not None and int(learner.target.step) == 4


def test_it_repeats(make_learner: MakeLearner) -> None:
    states = []
    for _ in range(2):
        learner = make_learner(augment_fn=None).float()
        loader = DataLoader(byol.MockDataset(8, 12), batch_size=4, shuffle=True)
        torch.manual_seed(11)
        byol.train_byol(learner, loader, Adam(learner.parameters(), lr=0.01), 2, "cpu")
        states.append(learner.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "epoch 1 has no batch of two images or more"),
        ([BATCHES[0, :1]], "epoch 1 has no batch of two images or more"),
        (iter(BATCHES), "epoch 2 has no batch of two images or more"),
        ([{"image": BATCHES[0]}], "a batch holds a dict: it must be images [B,C,H,W]"),
        ([[torch.arange(4), BATCHES[0]]], "a batch holds a Tensor [4]: it must be images"),
    ],
    ids=["empty", "single images", "used up", "dict", "labels first"],
)
def test_loaders_that_will_not_do(loader: Iterable[Any], message: str, make_learner: MakeLearner) -> None:
    learner = make_learner()
    with pytest.raises(byol.UserError, match=re.escape(message)):
        byol.train_byol(learner, loader, Adam(learner.parameters()), 2, "cpu")


@pytest.mark.parametrize("batches", [1, 200])
def test_what_is_not_finite_stops_it_soon(batches: int, make_learner: MakeLearner) -> None:
    learner = make_learner()
    bad = BATCHES[0].clone()
    bad[0, 0, 0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=rf"not finite by step {min(batches, 50)}\."):
        byol.train_byol(learner, [bad] * batches, SGD(learner.parameters(), lr=0.1), 1, "cpu")


@pytest.mark.gpu
def test_it_moves_the_learner_and_the_images(make_learner: MakeLearner) -> None:
    learner = make_learner(augment_fn=None).float()
    optimizer = Adam(learner.parameters(), lr=0.01)
    byol.train_byol(learner, [BATCHES[0].float()] * 2, optimizer, 1, "cuda")
    assert {parameter.device.type for parameter in learner.parameters()} == {"cuda"}
    assert learner.target is not None and int(learner.target.step) == 2


def test_the_documented_example_of_byol_from_scratch() -> None:
    """The code of that README but for the imports, pretrained=True, 100 epochs, and its loader."""
    from torch import optim
    from torchvision.models import resnet18

    from byol import BYOL, train_byol

    device = "cpu"
    resnet18_model = resnet18()
    byol_model = BYOL(
        base_model=resnet18_model,
        image_size=32,
        projection_hidden_size=4096,
        projection_size=256,
        moving_avg_decay=0.99,
    )
    optimizer = optim.Adam(byol_model.parameters(), lr=1e-4)
    images = torch.rand(4, 3, 32, 32)
    train_dl = DataLoader(TensorDataset(images, torch.arange(4)), batch_size=2)
    byol_model = train_byol(model=byol_model, train_dl=train_dl, optimizer=optimizer, epochs=1, device=device)
    assert byol_model(images, get_embedding=True).shape == (4, 512)
    fresh = torchvision.models.resnet18()
    fresh.load_state_dict(resnet18_model.state_dict(), strict=True)
