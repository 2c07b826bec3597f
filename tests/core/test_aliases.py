"""Another system's words for ours: BYOL(base_model=...), learner(x, get_embedding=True)."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import nn

from byol.core.aliases import keyword_aliases
from byol.core.learner import BYOL

MakeLearner = Callable[..., BYOL]


@keyword_aliases(breadth="width", tallness="height")
def area(width: int, height: int = 2) -> int:
    """Multiply."""
    return width * height


def test_an_alias_stands_for_its_keyword() -> None:
    assert area(3) == area(breadth=3) == area(width=3) == 6
    assert area(3, tallness=5) == area(tallness=5, breadth=3) == area(3, height=5) == 15


def test_both_names_at_once_are_an_error() -> None:
    with pytest.raises(TypeError, match="'breadth' is another name for 'width': give one of them"):
        area(breadth=3, width=3)
    with pytest.raises(TypeError, match="multiple values for argument 'width'"):
        area(3, breadth=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        area(3, depth=3)


def test_signature_and_docstring_stay() -> None:
    assert area.__doc__ == "Multiply." and area.__name__ == "area"
    assert list(inspect.signature(area).parameters) == ["width", "height"]
    parameters = inspect.signature(BYOL).parameters
    assert list(parameters)[:3] == ["net", "image_size", "hidden_layer"]
    assert not {"base_model", "moving_avg_decay"} & parameters.keys()


def test_the_learner_takes_them(make_net: Callable[[], nn.Sequential]) -> None:
    net = make_net()
    learner = BYOL(base_model=net, image_size=8, projection_hidden_size=12, moving_avg_decay=0.9)
    assert learner.backbone.net is net and learner.tau == 0.9
    with pytest.raises(TypeError, match="'moving_avg_decay' is another name for 'moving_average_decay'"):
        BYOL(net, 8, moving_average_decay=0.9, moving_avg_decay=0.9)
    with pytest.raises(TypeError, match="multiple values for argument 'net'"):
        BYOL(net, 8, base_model=net)
    assert (
        BYOL.__doc__ is not None and "`base_model`" in BYOL.__doc__ and "`moving_avg_decay`" in BYOL.__doc__
    )


def test_embeddings_alone(make_learner: MakeLearner) -> None:
    learner = make_learner().eval()
    images = torch.rand(3, 3, 8, 8)
    _, embedding = learner(images, return_embedding=True)
    assert torch.equal(learner(images, get_embedding=True), embedding)
    assert torch.equal(learner(images, get_embedding=True, return_embedding=True), embedding)
    assert learner(images, get_embedding=False).ndim == 0
    assert learner(images[:1], get_embedding=True).shape == (1, 8)
