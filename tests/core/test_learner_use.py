"""The learner as a module in somebody's loop: construction, embeddings, state, copies, refusals."""

import copy
import pickle
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from byol.core.heads import mlp
from byol.core.learner import BYOL
from byol.errors import UserError

MakeLearner = Callable[..., BYOL]
MakeNet = Callable[..., nn.Sequential]


def test_construction_leaves_the_network_as_it_was(make_learner: MakeLearner, make_net: MakeNet) -> None:
    net = make_net()
    net[3].eval()
    net[0].weight.requires_grad_(False)
    state = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    flags = [parameter.requires_grad for parameter in net.parameters()]
    learner = make_learner(net)
    assert learner.backbone.net is net
    assert all(map(torch.equal, state.values(), net.state_dict().values()))
    assert modes == [module.training for module in net.modules()]
    assert flags == [parameter.requires_grad for parameter in net.parameters()]
    assert all(parameter.grad is None for parameter in net.parameters())


def test_construction_leaves_a_network_in_eval_mode(make_learner: MakeLearner, make_net: MakeNet) -> None:
    learner = make_learner(make_net().eval())
    assert not any(module.training for module in learner.backbone.net.modules())


def test_construction_draws_the_heads_and_nothing_else(make_learner: MakeLearner) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.manual_seed(4)
    learner = make_learner(net, hidden_layer=None)
    after = torch.get_rng_state()
    torch.manual_seed(4)
    projector, predictor = mlp(8, 12, 5), mlp(5, 12, 5)
    assert torch.equal(after, torch.get_rng_state())
    assert torch.equal(learner.online.projector[0].weight, projector[0].weight)
    assert torch.equal(learner.predictor[3].weight, predictor[3].weight)


def test_the_default_heads_are_the_published_ones(make_net: MakeNet) -> None:
    learner = BYOL(make_net(), 8)
    sizes = [(m.in_features, m.out_features, m.bias is not None) for m in linears(learner.online.projector)]
    assert sizes == [(8, 4096, True), (4096, 256, False)]
    sizes = [(m.in_features, m.out_features, m.bias is not None) for m in linears(learner.predictor)]
    assert sizes == [(256, 4096, True), (4096, 256, False)]
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    for head in (learner.online.projector, learner.predictor):
        assert [type(layer) for layer in head] == kinds, "without the ReLU a head is linear"
    assert learner.tau == 0.99
    simsiam = BYOL(make_net(), 8, use_momentum=False)
    assert [m.out_features for m in linears(simsiam.online.projector)] == [2048, 2048, 2048]
    assert [m.out_features for m in linears(simsiam.predictor)] == [512, 2048]
    last = simsiam.online.projector[-1]
    assert isinstance(last, nn.BatchNorm1d) and not last.affine


def linears(module: nn.Module) -> list[nn.Linear]:
    return [child for child in module.modules() if isinstance(child, nn.Linear)]


@pytest.mark.parametrize("momentum", [True, False])
def test_the_state_holds_the_backbone_once_per_network(momentum: bool, make_learner: MakeLearner) -> None:
    net = torchvision.models.resnet18()
    learner = make_learner(net, image_size=32, hidden_layer="avgpool", use_momentum=momentum)
    endings = Counter(
        name for key in learner.state_dict() for name in net.state_dict() if key.endswith(f".net.{name}")
    )
    assert endings == dict.fromkeys(net.state_dict(), 2 if momentum else 1)
    prefixes = {key.split(".")[0] for key in learner.state_dict()}
    assert prefixes == ({"online", "predictor", "target"} if momentum else {"online", "predictor"})


def test_the_state_goes_round(make_learner: MakeLearner, tmp_path: Path) -> None:
    first, second = make_learner(), make_learner()
    first(torch.rand(4, 3, 8, 8))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    views = torch.rand(2, 4, 3, 8, 8)
    assert torch.equal(first(*views), second(*views))


def test_data_parallel_copies_are_refused(make_learner: MakeLearner) -> None:
    """byol-pytorch's hooks fail in one of DataParallel's threads or the other; ours say what to use."""
    replica = make_learner()._replicate_for_data_parallel()
    with pytest.raises(UserError, match="use DistributedDataParallel"):
        replica(torch.rand(4, 3, 8, 8))


@pytest.mark.parametrize("momentum", [True, False])
def test_parameters_keep_their_places(momentum: bool, make_learner: MakeLearner) -> None:
    """Backbone, projector, predictor: an optimizer's state in older checkpoints goes by place alone."""
    names = [name for name, _ in make_learner(use_momentum=momentum).named_online_parameters()]
    parts = [".".join(name.split(".")[:2]) if name.startswith("online") else "predictor" for name in names]
    assert list(dict.fromkeys(parts)) == ["online.backbone", "online.projector", "predictor"]
    assert parts == sorted(parts)


@pytest.mark.parametrize("momentum", [True, False])
def test_copies_and_pickles_work_on_their_own(
    momentum: bool, make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]
) -> None:
    learner = make_learner(use_momentum=momentum, total_steps=9)
    learner.update_moving_average()
    expected = copy.deepcopy(learner)(*two_views)
    copies = [copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))]
    for other in copies:
        assert torch.equal(other(*two_views), expected)
        assert other.tau == learner.tau
        with torch.no_grad():
            other.online.backbone.net[0].weight.zero_()
    assert torch.equal(learner(*two_views), expected)


def test_the_wrapped_network_can_be_copied_and_used_alone(
    make_learner: MakeLearner, make_net: MakeNet, two_views: tuple[Tensor, Tensor]
) -> None:
    net = make_net().eval()
    images = two_views[0]
    expected = net(images)
    learner = make_learner(net)
    learner(*two_views)
    net.eval()
    for other in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(images), expected)
    again = make_learner(copy.deepcopy(net), hidden_layer=-3)
    assert again.backbone.num_features == 8


def test_two_learners_on_one_network_do_not_disturb_each_other(
    make_learner: MakeLearner, make_net: MakeNet, two_views: tuple[Tensor, Tensor]
) -> None:
    net = make_net()
    deep, shallow = make_learner(net, hidden_layer=-2), make_learner(net, hidden_layer=0)
    assert (deep.backbone.num_features, shallow.backbone.num_features) == (8, 6)
    deep(*two_views)
    shallow(*two_views)
    assert deep.backbone(two_views[0]).shape == (6, 8)


def test_embeddings_and_projections(make_learner: MakeLearner) -> None:
    learner = make_learner().eval()
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    projection, embedding = learner(images, return_embedding=True)
    assert projection.shape == (3, 5) and embedding.shape == (3, 8)
    alone = learner(images, return_embedding=True, return_projection=False)
    assert torch.equal(alone, embedding)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    plain = learner.backbone.net[:-1]((images / 255 - mean) / std)
    torch.testing.assert_close(embedding, plain)
    torch.testing.assert_close(learner(images / 255, return_embedding=True)[1], plain)


def test_embeddings_with_the_users_augmentation_add_nothing(make_learner: MakeLearner) -> None:
    learner = make_learner(augment_fn=lambda x: x * float("nan")).eval()
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    expected = learner.backbone.net[:-1](images / 255)
    for given in (images, images / 255):
        torch.testing.assert_close(learner(given, return_embedding=True)[1], expected)


def test_one_image_is_enough_for_an_embedding(make_learner: MakeLearner) -> None:
    learner = make_learner().eval()
    projection, embedding = learner(torch.rand(1, 3, 8, 8), return_embedding=True)
    assert projection.shape == (1, 5) and embedding.shape == (1, 8), "one image keeps its dimension"
    assert learner(torch.rand(1, 3, 8, 8)).ndim == 0


@pytest.mark.parametrize("concatenate", [False, True])
def test_one_image_is_no_batch_to_train_on(concatenate: bool, make_learner: MakeLearner) -> None:
    learner = make_learner(concatenate_views=concatenate)
    with pytest.raises(ValueError, match=r"a batch of one image .* use at least two images"):
        learner(torch.rand(1, 3, 8, 8))


def test_synchronised_batch_norm_needs_a_gpu(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match="sync_batchnorm needs the network on a GPU"):
        make_learner(sync_batchnorm=True)
    names = {type(module).__name__ for module in make_learner().modules()}
    assert "SyncBatchNorm" not in names


def test_a_wrong_size_for_a_vit_is_one_line(make_learner: MakeLearner) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1)
    with pytest.raises(UserError, match=r"cannot take 3 x 48 x 48 images \(image_size 48") as caught:
        make_learner(vit, image_size=48, hidden_layer=None)
    assert "\n" not in str(caught.value)


def test_a_wrong_number_of_channels_is_one_line(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match="cannot take 1 x 8 x 8 images") as caught:
        make_learner(channels=1)
    assert "\n" not in str(caught.value)


def test_heads_follow_the_networks_precision(make_learner: MakeLearner, make_net: MakeNet) -> None:
    learner = make_learner(make_net().double())
    assert {parameter.dtype for parameter in learner.parameters()} == {torch.float64}
    views = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64)
    assert learner(*views).dtype == torch.float64


@pytest.mark.parametrize("kind", [torch.uint8, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_images_of_any_kind_suit_a_network_of_any_precision(
    kind: torch.dtype, precision: torch.dtype, make_learner: MakeLearner, make_net: MakeNet
) -> None:
    learner = make_learner(make_net().to(precision))
    images = torch.randint(0, 2, (4, 3, 8, 8)).to(kind)
    assert learner(images).dtype == precision
    assert learner.compare_in_turn(*learner.draw_views(images)).loss.dtype == precision
    projection, embedding = learner(images, return_embedding=True)
    assert projection.dtype == embedding.dtype == precision
    shares = images.to(precision) / 255 if kind == torch.uint8 else images.to(precision)
    torch.testing.assert_close(
        learner.eval()(images, get_embedding=True), learner(shares, get_embedding=True)
    )


def test_images_to_embed_are_in_range(make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byol.augment.views._range_checked", False)
    with pytest.warns(UserWarning, match="divide by 255"):
        make_learner()(torch.full((2, 3, 8, 8), 255.0), get_embedding=True)


def test_values_are_not_read_where_there_are_none_or_gradients(
    make_learner: MakeLearner, make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byol.augment.views._range_checked", False)
    empty = make_learner(make_net().to("meta"))(torch.rand(2, 3, 8, 8, device="meta"), get_embedding=True)
    assert empty.is_meta
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_learner()(images, get_embedding=True).sum().backward()
    assert images.grad is not None


def test_a_network_left_in_eval_mode_is_told_of_once(
    make_learner: MakeLearner, make_net: MakeNet, two_views: tuple[Tensor, Tensor]
) -> None:
    """Its statistics would stay as they are; where only some are frozen, that is meant."""
    learner = make_learner(make_net().eval())
    with pytest.warns(UserWarning, match=r"in eval mode: call learner.train\(\)"):
        learner(*two_views)
    partly = make_net()
    partly[1].eval()
    others = make_learner(make_net()), make_learner(partly), make_learner(make_net().eval()).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (learner, *others, make_learner(make_net().eval()).eval()):
            other(*two_views)


@pytest.mark.parametrize("wanted", [None, False])
def test_statistics_of_single_processes_are_told_of(
    wanted: bool | None, make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the network came to its GPU, or the process to the others, after the learner was made."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())  # no norms but the heads'
    learner = make_learner(net, hidden_layer=None, sync_batchnorm=wanted)
    monkeypatch.setattr("byol.core.base_learner.several_processes", lambda: True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        learner._look_at_norms_once(cast(Tensor, SimpleNamespace(is_cuda=True)))
    assert ["sync_batchnorm=False" in str(each.message) for each in told] == [True] * (wanted is None)


def test_all_of_it_is_where_the_network_is(make_learner: MakeLearner, make_net: MakeNet) -> None:
    """Where that is a GPU, processes can send each other nothing that is not."""
    state = make_learner(make_net().to("meta")).state_dict()
    assert {name for name, tensor in state.items() if tensor.device.type != "meta"} == set()


@pytest.mark.parametrize("momentum", [True, False])
def test_compiled_it_gives_the_same_loss_and_gradients(
    momentum: bool, make_learner: MakeLearner, two_views: tuple[Tensor, Tensor]
) -> None:
    learner = make_learner(use_momentum=momentum)
    plain = copy.deepcopy(learner)
    compiled = torch.compile(learner, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        losses = compiled(*two_views), plain(*two_views)
        for loss in losses:
            loss.backward()
        torch.testing.assert_close(*losses)
        pairs = zip(learner.online_parameters(), plain.online_parameters(), strict=True)
        assert all(torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-5) for a, b in pairs)
        for one in (learner, plain):
            with torch.no_grad():
                for parameter in one.online_parameters():
                    parameter.sub_(0.1 * parameter.grad)
            one.zero_grad()
            one.update_moving_average()
    assert all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(learner.state_dict().values(), plain.state_dict().values(), strict=True)
    )


def test_compiled_it_draws_views_for_batches_of_any_size(make_learner: MakeLearner) -> None:
    """The graphs break where views are drawn; what is made of them is the test above."""
    compiled = torch.compile(make_learner(), backend="eager")
    for size in (4, 6, 3):
        loss = compiled(torch.rand(size, 3, 8, 8))
        loss.backward()
        assert 0 <= float(loss.detach()) <= 8
