"""Simplicial embeddings against a loop in float64, and in the learner."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from byol.core.learner import BYOL
from byol.core.simplicial import SimplicialEmbedding
from byol.errors import UserError

MakeLearner = Callable[..., BYOL]


def in_a_loop(module: SimplicialEmbedding, features: Tensor, size: int, temperature: float) -> Tensor:
    """Linear, batch statistics, softmax: one number after another."""
    outputs = list(zip(module.linear.weight, module.linear.bias, strict=True))
    logits = [[float(weight @ row + bias) for weight, bias in outputs] for row in features]
    for column in range(len(logits[0])):
        values = [row[column] for row in logits]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        scale, offset = float(module.norm.weight[column]), float(module.norm.bias[column])
        for row in logits:
            row[column] = (row[column] - mean) / math.sqrt(variance + 1e-5) * scale + offset
    for row in logits:
        for start in range(0, len(row), size):
            powers = [math.exp(value / temperature) for value in row[start : start + size]]
            row[start : start + size] = [power / sum(powers) for power in powers]
    return torch.tensor(logits, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_it_equals_a_loop(temperature: float) -> None:
    module = SimplicialEmbedding(5, 3, 4, temperature).double()
    with torch.no_grad():
        module.norm.weight.uniform_(0.5, 2)
        module.norm.bias.uniform_(-1, 1)
        features = torch.randn(6, 5, dtype=torch.float64)
        embeddings = module(features)
        expected = in_a_loop(module, features, 4, temperature)
    torch.testing.assert_close(embeddings, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(embeddings.view(6, 3, 4).sum(-1), torch.ones(6, 3).double())


def test_the_learner_puts_it_before_the_projector(
    make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]
) -> None:
    learner = make_learner(
        simplicial_embeddings=True, num_simplices=4, simplex_size=3, simplex_temperature=0.2
    )
    embedding, linear = learner.online.projector[0], learner.online.projector[1]
    assert (embedding.linear.in_features, embedding.linear.out_features) == (8, 12)
    assert embedding.temperature == 0.2 and linear.in_features == 12
    assert learner.backbone(two_views[0]).shape == (6, 8), "the representation stays what it was"
    before = {name: parameter.clone() for name, parameter in learner.named_online_parameters()}
    optimizer = torch.optim.Adam(learner.online_parameters(), lr=0.01)
    learner(*two_views).backward()
    optimizer.step()
    assert all(not torch.equal(before[name], p) for name, p in learner.named_online_parameters())
    projection, representation = learner.eval()(torch.rand(2, 3, 8, 8), return_embedding=True)
    assert projection.shape == (2, 5) and representation.shape == (2, 8)


def test_off_by_default_and_with_the_published_sizes(
    make_learner: MakeLearner, make_net: Callable[[], nn.Sequential]
) -> None:
    assert not any(isinstance(module, SimplicialEmbedding) for module in make_learner().modules())
    for momentum in (True, False):
        learner = BYOL(make_net(), 8, simplicial_embeddings=True, use_momentum=momentum)
        embedding = learner.online.projector[0]
        assert embedding.linear.out_features == 256 and embedding.num_simplices == 32
        assert embedding.temperature == 0.1


def test_it_goes_with_group_normalisation(make_learner: MakeLearner) -> None:
    learner = make_learner(simplicial_embeddings=True, normalization="group")
    assert isinstance(learner.online.projector[0].norm, nn.GroupNorm)


@pytest.mark.parametrize(
    "settings", [{"num_simplices": 0}, {"simplex_size": 1}, {"simplex_temperature": 0.0}], ids=str
)
def test_sizes_that_make_no_simplex_are_refused(
    settings: dict[str, float], make_learner: MakeLearner
) -> None:
    with pytest.raises(UserError, match=r"must be at least 1, at least 2 and above 0"):
        make_learner(simplicial_embeddings=True, **settings)
