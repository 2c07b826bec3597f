"""Steps of PixPro and PixContrast: against the methods written out, in float64."""

import copy
import pickle
import shutil
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from byol.core.pixel_learner import PixelCL
from byol.types import View
from tests.core.pixel_loops import looped_pairs, random_views, with_box
from tests.core.pixel_step import MAP_LAYER, WrittenOut, cosine_tau, make_pixel_learner

CASES: dict[str, dict[str, Any]] = {
    "pixpro": {"alpha": 0.0},
    "pixpro and instances": {"alpha": 0.4},
    "pixcontrast": {"alpha": 0.0, "use_pixpro": False},
    "pixcontrast and instances": {"use_pixpro": False},
}


@pytest.fixture
def pair() -> tuple[View, View]:
    """Two views of five images at 8 px; those of the second image have nothing in common."""
    view1, view2 = random_views(5, 8, torch.Generator().manual_seed(4))
    apart = slice(1, 2)
    return with_box(view1, apart, (0.0, 0.0, 0.4, 0.4)), with_box(view2, apart, (0.7, 0.6, 1.0, 1.0))


def gradients(learner: PixelCL) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in learner.named_online_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert found.keys() == expected.keys() and found
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_three_steps_are_those_of_the_method_written_out(case: str, pair: tuple[View, View]) -> None:
    """Loss and gradients of each, and weights of both networks at the end; tau rises from step to step."""
    learner = make_pixel_learner(moving_average_decay=0.8, total_steps=4, **CASES[case]).double()
    written = WrittenOut(learner)
    optimizer = torch.optim.SGD(learner.online_parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        loss = learner(*pair)
        loss.backward()
        expected_loss, expected = written.gradients(*pair)
        torch.testing.assert_close(loss.detach(), expected_loss, rtol=1e-10, atol=1e-10)
        assert_same(gradients(learner), expected)
        optimizer.step()
        assert learner.tau == pytest.approx(cosine_tau(0.8, step, 4), rel=1e-12)
        written.step(expected, 0.1, cosine_tau(0.8, step, 4))
        learner.update_moving_average()
    assert_same(dict(learner.named_parameters()), dict(written.weights.named_parameters()))
    assert learner.target is not None
    assert all(p.grad is None and not p.requires_grad for p in learner.target.parameters())
    target = learner.target.network.state_dict()
    assert any(not target[name].equal(value) for name, value in learner.online.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_one_direction_at_a_time_gives_the_same(case: str, pair: tuple[View, View]) -> None:
    together = make_pixel_learner(**CASES[case]).double()
    in_turn = copy.deepcopy(together)
    one = together.compare(*pair)
    one.loss.backward()
    other = in_turn.compare_in_turn(*pair)
    other.loss.backward()
    torch.testing.assert_close(one.loss, other.loss)
    assert one.projection.shape == one.target.shape == (2 * 5 * 16, 5)
    assert one.representation.shape == (10, 8)
    for name in ("projection", "target", "representation"):
        assert torch.equal(getattr(one, name), getattr(other, name))
        assert not getattr(one, name).requires_grad
    assert_same(gradients(in_turn), gradients(together), 1e-12)
    buffers = (dict(learner.named_buffers()) for learner in (together, in_turn))
    assert all(map(torch.equal, *(found.values() for found in buffers)))


def test_a_share_weighs_the_first_direction(pair: tuple[View, View]) -> None:
    whole = make_pixel_learner(normalization="group").double()
    half = copy.deepcopy(whole)
    whole.compare_in_turn(*pair).loss.backward()
    (half.compare_in_turn(*pair, 0.5).loss / 2).backward()
    doubled = {name: 2 * gradient for name, gradient in gradients(half).items()}
    assert_same(doubled, gradients(whole))


@pytest.mark.parametrize("case", CASES)
def test_images_without_positives_leave_the_loss_of_pixels_to_the_others(
    case: str, pair: tuple[View, View]
) -> None:
    """With group norms images do not meet: the loss of five is that of the four that match."""
    learner = make_pixel_learner(normalization="group", **{**CASES[case], "alpha": 0.0}).double()
    rows = torch.tensor([0, 2, 3, 4])
    matched = [View(view.image[rows], view.box[rows], view.flipped[rows]) for view in pair]  # type: ignore[index]
    torch.testing.assert_close(learner(*pair), learner(*matched), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_batches_without_any_positive_train_instances_alone(case: str, pair: tuple[View, View]) -> None:
    learner = make_pixel_learner(**CASES[case]).double()
    apart = [
        with_box(view, slice(None), (0.6 * i, 0.6 * i, 0.6 * i + 0.3, 0.6 * i + 0.3))
        for i, view in enumerate(pair)
    ]
    loss, pairs = learner(*apart, return_positive_pairs=True)
    loss.backward()
    assert pairs == 0 and (loss > 0 if learner.alpha else loss == 0)
    for name, gradient in gradients(learner).items():
        assert gradient.isfinite().all()
        if ".pixel." in name or not learner.alpha:
            assert not gradient.any(), name


def test_the_number_of_positive_pairs(pair: tuple[View, View]) -> None:
    _, pairs = make_pixel_learner(distance_thres=0.5).double()(*pair, return_positive_pairs=True)
    assert pairs == looped_pairs(*pair, (4, 4), 0.5).sum()


@pytest.mark.parametrize("case", CASES)
def test_one_step_moves_all_that_it_should_and_nothing_else(case: str) -> None:
    """Seed 001 trained neither its backbone nor its projectors, and its target was the online network."""
    learner = make_pixel_learner(moving_average_decay=0.75, **CASES[case])
    before = {name: parameter.clone() for name, parameter in learner.named_parameters()}
    optimizer = torch.optim.Adam(learner.online_parameters(), lr=1e-2)
    learner(torch.rand(8, 3, 16, 16)).backward()
    optimizer.step()
    moved = {name for name, p in learner.named_parameters() if not p.equal(before[name])}
    unused = {"online.backbone.net.8.weight", "online.backbone.net.8.bias"}
    online = {name for name in before if not name.startswith("target.")} - unused
    assert moved == online == {name for name, _ in learner.named_online_parameters()}
    learner.update_moving_average()
    now = dict(learner.named_parameters())
    for name in online:
        if name.startswith("online."):
            followed = "target.network." + name.removeprefix("online.")
            expected = 0.75 * before[followed] + 0.25 * now[name]
            torch.testing.assert_close(now[followed], expected, rtol=1e-5, atol=1e-7)


def test_the_loss_falls() -> None:
    torch.manual_seed(2)
    learner = make_pixel_learner()
    optimizer = torch.optim.Adam(learner.online_parameters(), lr=3e-3)
    images, losses = torch.rand(16, 3, 16, 16), []
    for _ in range(30):
        optimizer.zero_grad()
        loss = learner(images)
        loss.backward()
        optimizer.step()
        learner.update_moving_average()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


@pytest.mark.parametrize(
    ("alpha", "unreached"), [(0.0, ("layer4.", "fc.")), (1.0, ("fc.",))], ids=["pixels", "instances"]
)
def test_layers_that_the_loss_does_not_reach(alpha: float, unreached: tuple[str, ...]) -> None:
    net = torchvision.models.resnet18()
    learner = PixelCL(net, 64, "layer3", projection_size=8, projection_hidden_size=16, alpha=alpha)
    beyond = {
        f"online.backbone.net.{name}" for name, _ in net.named_parameters() if name.startswith(unreached)
    }
    assert learner.unreached == beyond
    learner(torch.rand(4, 3, 64, 64)).backward()
    with_gradient = {name for name, p in learner.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in learner.named_online_parameters()}
    assert not with_gradient & beyond
    online = {name for name, _ in learner.named_parameters() if not name.startswith("target.")}
    assert with_gradient == online - beyond
    assert any("instance" in name for name in online) == (alpha > 0)


def test_a_copy_and_a_saved_one_go_on_alike(pair: tuple[View, View]) -> None:
    learner = make_pixel_learner(total_steps=5).double()
    learner(*pair).backward()
    torch.optim.SGD(learner.online_parameters(), lr=0.1).step()
    learner.update_moving_average()
    loaded = make_pixel_learner(total_steps=5).double()
    loaded.load_state_dict(learner.state_dict())
    others = [copy.deepcopy(learner), pickle.loads(pickle.dumps(learner)), loaded]
    expected = learner(*pair)
    for other in others:
        assert torch.equal(other(*pair), expected)
        assert other.tau == learner.tau


@pytest.mark.parametrize("case", CASES)
def test_its_parts_compiled_it_gives_the_same(case: str, pair: tuple[View, View]) -> None:
    plain = make_pixel_learner(**CASES[case]).double()
    compiled = copy.deepcopy(plain)
    assert compiled.target is not None
    for part in (compiled.online, compiled.predictor, compiled.target):
        part.compile(backend="aot_eager", fullgraph=True)
    for learner in (plain, compiled):
        learner.compare_in_turn(*pair).loss.backward()
    assert_same(gradients(compiled), gradients(plain))


@pytest.mark.parametrize("case", CASES)
def test_in_lower_precision_it_goes_the_same_way(case: str, pair: tuple[View, View]) -> None:
    plain = make_pixel_learner(**CASES[case])
    fast = copy.deepcopy(plain)
    views = [View(view.image.float(), view.box, view.flipped) for view in pair]
    exact = plain.compare_in_turn(*views).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = fast.compare_in_turn(*views).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.05)
    for each in (exact, loss):
        each.backward()
    whole = [torch.cat([g.flatten() for g in gradients(learner).values()]) for learner in (plain, fast)]
    assert torch.cosine_similarity(*whole, dim=0) > 0.9


def test_in_eval_mode_one_image_will_do(pair: tuple[View, View]) -> None:
    view1, view2 = (View(view.image[:1], view.box[:1], view.flipped[:1]) for view in pair)  # type: ignore[index]
    learner = make_pixel_learner().double()
    with pytest.raises(ValueError, match="a batch of one image has no batch statistics"):
        learner(view1, view2)
    assert learner.eval()(view1, view2).isfinite()
    assert make_pixel_learner(normalization="group").double()(view1, view2).isfinite()


def test_the_map_s_layer_is_a_name_an_index_or_found(pair: tuple[View, View]) -> None:
    losses = []
    start = make_pixel_learner().double()
    for layer in (MAP_LAYER, "5", None):
        learner = make_pixel_learner(hidden_layer_pixel=layer).double()
        learner.load_state_dict(start.state_dict())
        losses.append(float(learner(*pair).detach()))
    # None: the pooling's 1x1 output is no map any more.
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_to_code_it_gives_the_same(pair: tuple[View, View]) -> None:
    """As `byol pretrain --compile on` does it."""
    plain = make_pixel_learner().double()
    compiled = copy.deepcopy(plain)
    assert compiled.target is not None
    for part in (compiled.online, compiled.predictor, compiled.target):
        part.compile()
    losses = [learner.compare_in_turn(*pair).loss for learner in (plain, compiled)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-10, atol=1e-10)
    assert_same(gradients(compiled), gradients(plain))
