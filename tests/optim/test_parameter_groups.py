"""Biases and norms are neither decayed nor adapted; everything else is both."""

import pytest
import timm
import torch
from torch import Tensor, nn

from byol.optim.groups import parameter_groups

WEIGHTS, OTHERS = "weights", "biases and norms"


def names_by_group(module: nn.Module) -> dict[str, set[str]]:
    groups = parameter_groups(module, module.named_parameters(), 0.1)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {group["name"]: {names[id(parameter)] for parameter in group["params"]} for group in groups}


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4),
        nn.SyncBatchNorm(4),
        nn.InstanceNorm1d(4, affine=True),
        nn.LayerNorm((2, 4)),
        nn.GroupNorm(2, 4),
        nn.RMSNorm(4),
        timm.layers.RmsNorm(4),
        timm.layers.BatchNormAct2d(4),
        timm.layers.LayerNorm2d(4),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_norms_and_biases_are_excluded(norm: nn.Module) -> None:
    module = nn.Sequential(nn.Linear(3, 4), norm, nn.Conv1d(4, 2, 1, bias=False))
    groups = names_by_group(module)
    assert groups[WEIGHTS] == {"0.weight", "2.weight"}
    assert groups[OTHERS] == {"0.bias", *(f"1.{name}" for name, _ in norm.named_parameters())}
    assert "1.weight" in groups[OTHERS]


class OwnNorm(nn.Module):
    """A norm as people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x / x.norm(dim=-1, keepdim=True)


class QuietNorm(nn.BatchNorm1d):
    """A norm whose name is told by its base class only."""


QuietNorm.__name__ = "Quiet"


def test_norms_of_other_makes_are_excluded() -> None:
    module = nn.Sequential(OwnNorm(), QuietNorm(4), nn.MultiheadAttention(4, 1))
    groups = names_by_group(module)
    assert groups[WEIGHTS] == {"2.in_proj_weight", "2.out_proj.weight"}
    assert groups[OTHERS] == {"0.scale", "1.weight", "1.bias", "2.in_proj_bias", "2.out_proj.bias"}


def test_the_flags_are_explicit_even_without_decay() -> None:
    module = nn.Linear(2, 2)
    weights, others = parameter_groups(module, module.named_parameters(), weight_decay=0.0)
    assert (weights["weight_decay"], weights["adapt"]) == (0.0, True)
    assert (others["weight_decay"], others["adapt"]) == (0.0, False)
    weights, _ = parameter_groups(module, module.named_parameters(), weight_decay=0.3)
    assert weights["weight_decay"] == 0.3


def test_every_parameter_is_in_one_group_and_empty_groups_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    (group,) = parameter_groups(module, module.named_parameters(), 0.1)
    assert group["name"] == WEIGHTS and len(group["params"]) == 2
    norm = nn.BatchNorm1d(3)
    (group,) = parameter_groups(norm, norm.named_parameters(), 0.1)
    assert group["name"] == OTHERS and len(group["params"]) == 2
    assert parameter_groups(nn.ReLU(), [], 0.1) == []


def test_only_the_given_parameters_are_grouped() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    given = [(name, p) for name, p in module.named_parameters() if name.startswith("1")]
    weights, others = parameter_groups(module, given, 0.1)
    assert weights["params"] == [module[1].weight] and others["params"] == [module[1].bias]


def test_names_from_an_outer_module_do_not_mislead() -> None:
    """A wrapper (a training module, DistributedDataParallel) puts a prefix before every name."""
    inner = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    outer = nn.ModuleDict({"learner": inner})
    weights, others = parameter_groups(outer, inner.named_parameters(), 0.1)
    assert weights["params"] == [inner[0].weight] and len(others["params"]) == 3


def test_a_resnet_has_a_decayed_weight_for_each_convolution_and_linear_layer() -> None:
    net = timm.create_model("resnet18")
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    groups = parameter_groups(net, net.named_parameters(), 1e-6)
    assert {id(p) for p in groups[0]["params"]} == {id(layer.weight) for layer in layers}
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
