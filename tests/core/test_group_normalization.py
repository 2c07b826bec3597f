"""BYOL without batch statistics: what becomes of a network, and that no image knows of the others."""

import copy
import pickle
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from byol.core.backbone import Backbone
from byol.core.group_normalization import use_group_normalization
from byol.core.learner import BYOL
from byol.core.weight_standardization import StandardizedConv2d, StandardizedLinear, standardized
from byol.errors import UserError
from byol.optim.groups import parameter_groups

MakeLearner = Callable[..., BYOL]


def group_norm(x: Tensor, groups: int, scale: Tensor | float, offset: Tensor | float) -> Tensor:
    """Normalise each group of channels of each image by its own mean and biased variance, in a loop."""
    normalised = torch.empty_like(x)
    size = x.shape[1] // groups
    for image in range(len(x)):
        for group in range(groups):
            part = x[image, group * size : (group + 1) * size]
            variance = ((part - part.mean()) ** 2).mean()
            normalised[image, group * size : (group + 1) * size] = (part - part.mean()) / (
                variance + 1e-5
            ).sqrt()
    shape = [1, -1] + [1] * (x.ndim - 2)
    scale, offset = (v.view(shape) if isinstance(v, Tensor) else v for v in (scale, offset))
    return normalised * scale + offset


@pytest.mark.parametrize(
    ("norm", "groups"),
    [
        (nn.BatchNorm2d(64), 16),
        (nn.BatchNorm2d(48), 16),
        (nn.BatchNorm2d(24), 12),
        (nn.BatchNorm2d(16), 8),
        (nn.BatchNorm2d(34), 2),
        (nn.BatchNorm2d(5), 1),
        (nn.BatchNorm2d(1), 1),
        (nn.BatchNorm1d(4096), 16),
        (nn.BatchNorm1d(64), 8),
        (nn.BatchNorm1d(12), 1),
        (nn.SyncBatchNorm(32), 16),
        (nn.BatchNorm1d(64, affine=False), 8),
    ],
    ids=str,
)
def test_a_batch_norm_becomes_a_group_norm(norm: _BatchNorm, groups: int) -> None:
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    parameters = (norm.weight, norm.bias)
    net = nn.Sequential(norm).double()
    use_group_normalization(net, [])
    assert (net[0].weight, net[0].bias) == parameters, "the same objects"
    shape = (3, norm.num_features) if isinstance(norm, nn.BatchNorm1d) else (3, norm.num_features, 4, 5)
    x = torch.randn(shape, dtype=torch.float64)
    scale, offset = parameters if norm.affine else (1.0, 0.0)
    torch.testing.assert_close(net(x), group_norm(x, groups, scale, offset), rtol=1e-10, atol=1e-12)


def test_a_batch_norm_with_an_activation_keeps_it() -> None:
    norm = timm.layers.BatchNormAct2d(8, act_layer=nn.SiLU)
    nn.init.normal_(norm.weight)
    net = nn.Sequential(norm)
    use_group_normalization(net, [])
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(net(x), F.silu(group_norm(x, 4, norm.weight, norm.bias)))
    assert net.state_dict().keys() == {"0.weight", "0.bias"}


NETS: dict[str, tuple[Callable[[], nn.Module], str | None]] = {
    "resnet18": (torchvision.models.resnet18, "avgpool"),
    "timm resnet18": (lambda: timm.create_model("resnet18", num_classes=0), None),
    "squeeze and excite": (lambda: timm.create_model("mobilenetv3_small_050", num_classes=0), None),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 24), nn.BatchNorm1d(24)), None),
}


@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("case", NETS)
def test_no_image_knows_of_the_others_in_its_batch(
    case: str, momentum: bool, make_learner: MakeLearner
) -> None:
    make_net, layer = NETS[case]
    settings = {"hidden_layer": layer, "projection_hidden_size": 64, "use_momentum": momentum}
    learner = make_learner(make_net(), image_size=32, normalization="group", **settings).double().train()
    assert not any(isinstance(module, _BatchNorm) for module in learner.modules())
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)

    def predicted(batch: Tensor) -> Tensor:
        torch.manual_seed(0)
        return learner.predictor(learner.online(batch))

    together = predicted(images)
    for index in range(4):
        torch.testing.assert_close(predicted(images[index : index + 1])[0], together[index])
    others = torch.cat([images[:1], 100 * images[1:]])
    torch.testing.assert_close(predicted(others)[0], together[0])
    assert not torch.allclose(together[0], together[1])


def test_a_batch_of_one_image_will_do(make_learner: MakeLearner) -> None:
    learner = make_learner(normalization="group", projection_hidden_size=32)
    loss = learner(torch.rand(1, 3, 8, 8))
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in learner.online_parameters())


def test_layers_that_a_norm_follows_are_standardised_and_no_others(make_learner: MakeLearner) -> None:
    """A norm undoes the scale that standardised weights have; a gate's sigmoid would not."""
    resnet = torchvision.models.resnet18()
    make_learner(resnet, image_size=32, normalization="group")
    convolutions = [module for module in resnet.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 20 and all(type(layer) is StandardizedConv2d for layer in convolutions)
    assert type(resnet.fc) is nn.Linear
    gated = NETS["squeeze and excite"][0]()
    Backbone(gated, 32, normalization="group")
    kinds = {name: type(module) for name, module in gated.named_modules() if isinstance(module, nn.Conv2d)}
    plain = {name for name, kind in kinds.items() if kind is not StandardizedConv2d}
    assert plain == {name for name in kinds if ".se." in name or name == "conv_head"}
    assert len(plain) > 10 and len(kinds) - len(plain) > 10


def test_heads_have_standardised_weights_throughout(make_learner: MakeLearner) -> None:
    learner = make_learner(normalization="group")
    for head in (learner.online.projector, learner.predictor):
        linears = [module for module in head.modules() if isinstance(module, nn.Linear)]
        assert len(linears) == 2 and all(type(layer) is StandardizedLinear for layer in linears)


def test_the_users_network_is_changed_in_place_with_its_own_parameters(
    make_learner: MakeLearner, make_net: Callable[[], nn.Sequential]
) -> None:
    net = make_net().eval()
    before = dict(net.named_parameters())
    learner = make_learner(net, normalization="group")
    assert learner.backbone.net is net and learner.backbone.normalization == "group"
    after = dict(net.named_parameters())
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in after)
    assert not list(net.buffers()) and not any(module.training for module in net.modules())
    names = {name for name, _ in learner.named_online_parameters()}
    assert "online.backbone.net.1.weight" in names and "online.backbone.net.8.weight" not in names
    state = copy.deepcopy(net.state_dict())
    make_learner(net, normalization="group")
    assert [type(module) for module in net.modules()].count(StandardizedConv2d) == 2
    assert all(map(torch.equal, state.values(), net.state_dict().values()))


def test_a_norm_may_be_the_hidden_layer(make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]) -> None:
    learner = make_learner(hidden_layer="4", normalization="group")
    assert isinstance(learner.backbone.net[4], nn.GroupNorm)
    expected = learner.backbone.net[:5](two_views[0]).mean((2, 3))
    torch.testing.assert_close(learner.backbone(two_views[0]), expected)


def test_copies_and_pickles_work(make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]) -> None:
    learner = make_learner(normalization="group")
    expected = learner(*two_views)
    for other in (copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))):
        assert torch.equal(other(*two_views), expected)


def test_compiled_it_gives_the_same_loss(make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]) -> None:
    learner = make_learner(normalization="group")
    compiled = torch.compile(learner, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*two_views), learner(*two_views))


def test_loss_and_gradients_equal_the_algorithm_written_out(
    make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]
) -> None:
    """One view after another through formulas, in float64; `standardized` has a test of its own."""
    learner = make_learner(normalization="group", projection_hidden_size=64).double()
    v1, v2 = (view.double() for view in two_views)
    online = {n: p.detach().clone().requires_grad_() for n, p in learner.online.named_parameters()}
    predictor = {n: p.detach().clone().requires_grad_() for n, p in learner.predictor.named_parameters()}

    def backbone(x: Tensor) -> Tensor:
        for conv, norm, stride, groups in (("0", "1", 2, 3), ("3", "4", 1, 4)):
            w = {part: online[f"backbone.net.{part}"] for part in (f"{conv}.weight", f"{conv}.bias")}
            x = F.conv2d(x, standardized(w[f"{conv}.weight"]), w[f"{conv}.bias"], stride, padding=1)
            scale, offset = online[f"backbone.net.{norm}.weight"], online[f"backbone.net.{norm}.bias"]
            x = group_norm(x, groups, scale, offset).clamp(min=0)
        return x.mean((2, 3))

    def head(x: Tensor, w: dict[str, Tensor], prefix: str = "") -> Tensor:
        x = x @ standardized(w[f"{prefix}0.weight"]).T + w[f"{prefix}0.bias"]
        x = group_norm(x, 8, w[f"{prefix}1.weight"], w[f"{prefix}1.bias"]).clamp(min=0)
        return x @ standardized(w[f"{prefix}3.weight"]).T

    z1, z2 = (head(backbone(view), online, "projector.") for view in (v1, v2))
    p1, p2 = (head(z, predictor) for z in (z1, z2))
    cosines = F.cosine_similarity(p1, z2.detach()) + F.cosine_similarity(p2, z1.detach())
    expected = (4 - 2 * cosines).mean()
    expected.backward()
    loss = learner(v1, v2)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    for module, copies in ((learner.online, online), (learner.predictor, predictor)):
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(parameter.grad, copies[name].grad, rtol=1e-8, atol=1e-10)


def test_group_norms_are_neither_decayed_nor_adapted(make_learner: MakeLearner) -> None:
    learner = make_learner(timm.create_model("mobilenetv3_small_050", num_classes=0), normalization="group")
    groups = parameter_groups(learner, learner.named_online_parameters(), 0.1)
    modules = dict(learner.named_modules())
    owners = {id(p): (modules[name.rpartition(".")[0]], name) for name, p in learner.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            owner, name = owners[id(parameter)]
            excluded = isinstance(owner, nn.GroupNorm) or name.endswith("bias")
            assert group["name"] == ("biases and norms" if excluded else "weights"), name
            assert isinstance(owner, nn.GroupNorm | nn.Conv2d | nn.Linear)


def test_choices_that_make_no_sense_are_refused_and_change_nothing(
    make_learner: MakeLearner, make_net: Callable[[], nn.Sequential]
) -> None:
    net = make_net()
    with pytest.raises(UserError, match=r"unknown normalization 'layer'.*batch, group"):
        make_learner(net, normalization="layer")
    with pytest.raises(UserError, match="with group normalisation there are no statistics"):
        make_learner(net, normalization="group", target_statistics="average")
    with pytest.raises(UserError, match="cannot take 4 x 8 x 8 images"):
        make_learner(net, normalization="group", channels=4)
    assert isinstance(net[1], nn.BatchNorm2d) and type(net[0]) is nn.Conv2d
