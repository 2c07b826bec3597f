"""One step of an optimizer moves every parameter that the loss depends on, and no other."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from byol.core.learner import BYOL

MakeLearner = Callable[..., BYOL]
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "resnet, by name": (torchvision.models.resnet18, {"hidden_layer": "avgpool"}),
    "resnet, by index": (torchvision.models.resnet18, {"hidden_layer": -2}),
    "resnet, inner layer": (torchvision.models.resnet18, {"hidden_layer": "layer2.0.conv1"}),
    "timm vit": (
        lambda: timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=2),
        {"hidden_layer": None},
    ),
    "timm convnext": (
        lambda: timm.create_model("convnext_atto", num_classes=0, depths=(1, 1, 1, 1)),
        {"hidden_layer": None},
    ),
    "simsiam": (torchvision.models.resnet18, {"hidden_layer": "avgpool", "use_momentum": False}),
    "concatenated": (torchvision.models.resnet18, {"hidden_layer": -2, "concatenate_views": True}),
}


def train_one_step(learner: BYOL, images: Tensor) -> list[str]:
    """Step Adam over the online parameters; return the names of the parameters that moved."""
    before = {name: parameter.clone() for name, parameter in learner.named_parameters()}
    optimizer = torch.optim.Adam(learner.online_parameters(), lr=1e-2)
    learner(images).backward()
    optimizer.step()
    return [name for name, parameter in learner.named_parameters() if not parameter.equal(before[name])]


@pytest.mark.parametrize("case", CASES)
def test_every_online_parameter_moves_and_no_other(case: str, make_learner: MakeLearner) -> None:
    make_net, settings = CASES[case]
    learner = make_learner(make_net(), image_size=32, **settings)
    moved = train_one_step(learner, torch.rand(4, 3, 32, 32))
    assert moved == [name for name, _ in learner.named_online_parameters()]
    inner = settings["hidden_layer"] == "layer2.0.conv1"
    beyond = ("layer2.0.bn", "layer2.0.conv2", "layer2.0.downsample", "layer2.1", "layer3", "layer4", "fc")
    unused = beyond if inner else ("fc",)
    expected = [
        name
        for name, _ in learner.named_parameters()
        if not name.startswith(("target.", *(f"online.backbone.net.{part}" for part in unused)))
    ]
    assert moved == expected


def test_an_unused_layer_stays_the_users(
    make_learner: MakeLearner, make_net: Callable[[], nn.Sequential], caplog: pytest.LogCaptureFixture
) -> None:
    net = make_net()
    classifier = net[-1]
    with caplog.at_level(logging.INFO, logger="byol"):
        learner = make_learner(net)
        for _ in range(2):
            learner(torch.rand(4, 3, 8, 8)).backward()
            learner.update_moving_average()
    assert all(parameter.requires_grad and parameter.grad is None for parameter in classifier.parameters())
    ours = {id(parameter) for parameter in learner.online_parameters()}
    assert not ours & {id(parameter) for parameter in classifier.parameters()}
    told = [record for record in caplog.records if "8.weight" in record.getMessage()]
    assert len(told) == 1 and "8.bias" in told[0].getMessage()


def test_nothing_is_logged_where_every_parameter_is_reached(
    make_learner: MakeLearner, make_net: Callable[[], nn.Sequential], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="byol"):
        make_learner(make_net()[:-1], hidden_layer=None)
    assert not caplog.records


def test_parameters_the_user_froze_stay_frozen(
    make_learner: MakeLearner, make_net: Callable[[], nn.Sequential]
) -> None:
    net = make_net()
    net[0].requires_grad_(False)
    learner = make_learner(net)
    moved = train_one_step(learner, torch.rand(4, 3, 8, 8))
    assert not net[0].weight.requires_grad
    assert "online.backbone.net.0.weight" not in moved
    assert "online.backbone.net.3.weight" in moved


def test_a_network_thawed_later_still_leaves_its_unused_layer_out(
    make_learner: MakeLearner, make_net: Callable[[], nn.Sequential]
) -> None:
    net = make_net().requires_grad_(False)
    learner = make_learner(net)
    assert all(
        name.startswith(("online.projector", "predictor")) for name, _ in learner.named_online_parameters()
    )
    net.requires_grad_(True)
    names = [name for name, _ in learner.named_online_parameters()]
    assert "online.backbone.net.3.weight" in names
    assert not any(name.startswith("online.backbone.net.8") for name in names)


def test_the_target_stays_out_even_where_all_gradients_are_asked_for(make_learner: MakeLearner) -> None:
    learner = make_learner().requires_grad_(True)
    assert not any(name.startswith("target") for name, _ in learner.named_online_parameters())
    assert learner.target is not None
    learner(torch.rand(4, 3, 8, 8)).backward()
    learner.update_moving_average()
    assert all(parameter.grad is None for parameter in learner.target.parameters())


def test_the_augmentations_own_parameters_are_not_trained(make_learner: MakeLearner) -> None:
    learner = make_learner(augment_fn=nn.Conv2d(3, 3, 1))
    names = {name.split(".")[0] for name, _ in learner.named_online_parameters()}
    assert names == {"online", "predictor"}
