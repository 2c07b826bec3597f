"""Views of a pixel learner: drawn here, with the user's augmentations, or given; and what is refused."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from byol.augment.presets import ViewSpec
from byol.augment.view_settings import view_specs_of
from byol.augment.views import views
from byol.core.named_backbone import build_backbone
from byol.core.pixel_learner import PixelCL
from byol.errors import UserError
from byol.types import View
from tests.core.conftest import tiny_net
from tests.core.pixel_step import make_pixel_learner


def boxes_of(view: View) -> Tensor:
    assert view.box is not None
    return view.box


def sides_of(view: View) -> Tensor:
    """Return width and height [B,2] of a view's crops, as shares of the image's."""
    return boxes_of(view)[:, 2:] - boxes_of(view)[:, :2]


def test_every_image_has_crops_of_its_own() -> None:
    """Seed 001 draws one crop and one mirroring for the whole batch."""
    pair = make_pixel_learner(image_size=16).draw_views(torch.rand(32, 3, 64, 64))
    boxes = torch.cat([boxes_of(view) for view in pair])
    assert boxes.shape == (64, 4) and len(boxes.unique(dim=0)) == 64
    assert all(0 < view.flipped.sum() < 32 for view in pair)


def test_views_are_those_of_the_preset() -> None:
    images = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    learner = make_pixel_learner(image_size=16, preset="small")
    torch.manual_seed(5)
    drawn = learner.draw_views(images)
    torch.manual_seed(5)
    expected = views(images, 16, "small", return_geometry=True)
    for view, other in zip(drawn, expected, strict=True):
        assert torch.equal(view.image, other.image)
        assert torch.equal(boxes_of(view), boxes_of(other)) and torch.equal(view.flipped, other.flipped)


def bare_of(spec: ViewSpec) -> ViewSpec:
    """Return a view with crop and mirroring alone."""
    return replace(spec, jitter=None, grey=0.0, blur=0.0, solarize=0.0)


@pytest.mark.parametrize("preset", ["imagenet", "official"])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_the_users_augmentation_gets_crops_of_both_views(kind: str, preset: str) -> None:
    """Seed 001 builds augmentations and never calls them."""
    images = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8)
    seen: list[Tensor] = []

    def inverted(crops: Tensor) -> Tensor:
        seen.append(crops.clone())
        return 1 - crops

    learner = make_pixel_learner(image_size=16, augment_fn=inverted, preset=preset)
    torch.manual_seed(5)
    drawn = learner.draw_views(images if kind == "uint8" else images / 255)
    specs = view_specs_of(preset)
    bare = (bare_of(specs[0]), bare_of(specs[1]))
    torch.manual_seed(5)
    expected = views(images, 16, bare, normalize=None, return_geometry=True)
    assert len(seen) == 2 and not torch.equal(*seen)
    for view, crops, other in zip(drawn, seen, expected, strict=True):
        assert crops.dtype == torch.float32 and crops.min() >= 0 and crops.max() <= 1
        torch.testing.assert_close(crops, other.image, rtol=0, atol=1e-5)
        assert torch.equal(view.image, 1 - crops)
        assert torch.equal(boxes_of(view), boxes_of(other)) and torch.equal(view.flipped, other.flipped)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_images_of_any_kind_suit_a_network_of_any_precision(
    kind: torch.dtype, precision: torch.dtype
) -> None:
    learner = make_pixel_learner(tiny_net().to(precision))
    images = torch.randint(0, 2, (4, 3, 12, 12)).to(kind)
    assert learner(images).dtype == precision
    assert {view.image.dtype for view in learner.draw_views(images)} == {precision}


def test_a_second_augmentation_is_the_second_views() -> None:
    images = torch.rand(4, 3, 24, 24)
    learner = make_pixel_learner(augment_fn=lambda x: x * 0 + 1, augment_fn2=nn.Sequential())
    first, second = learner.draw_views(images)
    assert torch.equal(first.image, torch.ones(4, 3, 8, 8))
    assert second.image.min() >= 0 and second.image.std() > 0.01
    first, second = make_pixel_learner(augment_fn2=lambda x: x * 0 + 1).draw_views(images)
    assert torch.equal(second.image, torch.ones(4, 3, 8, 8))
    assert first.image.min() < -0.5, "the preset's, normalised"


def test_crops_of_a_range_of_sides() -> None:
    """Squares in pixels, of areas drawn uniformly from 0.36 to 0.64 of the image's."""
    learner = make_pixel_learner(cutout_ratio_range=(0.6, 0.8))
    for height, width in ((100, 100), (90, 120)):
        drawn = learner.draw_views(torch.rand(200, 3, height, width))
        sides = torch.cat([sides_of(view) for view in drawn]) * torch.tensor([width, height])
        torch.testing.assert_close(sides[:, 0], sides[:, 1])
        areas = sides.prod(dim=1) / (height * width)
        assert 0.35 < areas.min() < 0.38 and 0.62 < areas.max() < 0.65
        assert float(areas.mean()) == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_probability_of_mirroring(probability: float) -> None:
    for view in make_pixel_learner(prob_rand_hflip=probability).draw_views(torch.rand(16, 3, 12, 12)):
        assert torch.equal(view.flipped, torch.full((16,), probability == 1))


def test_given_views_are_taken_as_they_are() -> None:
    learner = make_pixel_learner(augment_fn=lambda x: x * float("nan"))
    pair = views(torch.rand(4, 3, 24, 24), 8, "small", return_geometry=True)
    assert torch.equal(learner(*pair), learner.compare(*pair).loss)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels: int) -> None:
    learner = make_pixel_learner(tiny_net(channels))
    loss = learner(torch.randint(0, 256, (4, channels, 19, 27), dtype=torch.uint8))
    loss.backward()
    assert 0 <= float(loss.detach()) <= 16


def test_its_construction_leaves_the_network_as_it_is() -> None:
    net = tiny_net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    learner = make_pixel_learner(net)
    assert learner.backbone.net is net and all(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert learner.takes_views


def wrong_views() -> dict[str, tuple[Any, Any]]:
    images = torch.rand(4, 3, 28, 28)
    crops = views(images, 8, "small", return_geometry=True)
    larger = views(images, 16, "small", return_geometry=True)
    fewer = views(images[:3], 8, "small", return_geometry=True)
    return {
        "matched only where their crops are known": (torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)),
        "crops are known: give what": (crops[0], torch.rand(4, 3, 8, 8)),
        "do not tell which part of the image": views(images, 8, "glyph", return_geometry=True),
        r"views are \[4, 3, 8, 8\] and \[4, 3, 16, 16\]": (crops[0], larger[1]),
        r"views are \[4, 3, 8, 8\] and \[3, 3, 8, 8\]": (crops[0], fewer[1]),
        "one view alone": (crops[0], None),
    }


@pytest.mark.parametrize("message", wrong_views())
def test_views_that_cannot_be_matched_are_one_line(message: str) -> None:
    learner = make_pixel_learner()
    with pytest.raises(UserError, match=message) as caught:
        learner(*wrong_views()[message])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "glyph"}, "choose views with a crop"),
        ({"alpha": -1.0}, "alpha is -1.0, it must be 0 or more"),
        ({"distance_thres": 0.0}, "distance_thres is 0.0, it must be more than 0"),
        ({"similarity_temperature": 0.0}, "similarity_temperature is 0.0, it must be more than 0"),
        ({"moving_average_decay": 1.5}, "moving_average_decay is 1.5"),
        ({"total_steps": 0}, "total_steps is 0"),
        ({"ppm_num_layers": 3}, "0, 1 or 2 layers, not 3"),
        ({"ppm_gamma": 0.0}, "gamma is 0.0"),
        ({"alpha": math.nan}, "alpha is nan, it must be 0 or more"),
        ({"distance_thres": math.nan}, "distance_thres is nan, it must be more than 0"),
        ({"prob_rand_hflip": 2.0}, "flip is 2.0, it must lie between 0 and 1"),
        ({"cutout_ratio_range": (0.6, 1.2)}, r"cutout_ratio_range is \(0.6, 1.2\)"),
        ({"cutout_ratio_range": (-0.8, -0.6)}, r"cutout_ratio_range is \(-0.8, -0.6\)"),
        ({"hidden_layer_pixel": 8}, r"hidden layer 8 gives no map but \[2, 10\]"),
        ({"hidden_layer_pixel": "layer4"}, "no layer 'layer4'"),
        ({"hidden_layer_instance": 12}, "hidden layer 12: the network has 9 children"),
        ({"sync_batchnorm": True}, "sync_batchnorm needs the network on a GPU"),
        ({"normalization": "layer"}, "unknown normalization 'layer'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_settings_out_of_range_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_pixel_learner(**settings)
    assert "\n" not in str(caught.value)


def test_data_parallel_is_refused() -> None:
    learner = make_pixel_learner()
    learner._is_replica = True  # type: ignore[assignment]
    with pytest.raises(UserError, match="use DistributedDataParallel"):
        learner(torch.rand(4, 3, 8, 8))


@pytest.mark.parametrize(
    "name", ["resnet8_16", "convnext_atto", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"]
)
def test_networks_of_any_kind(name: str) -> None:
    net = build_backbone(name, 64).net
    learner = PixelCL(net, 64, None, None, 8, 16)
    loss = learner(torch.rand(2, 3, 80, 80))
    loss.backward()
    assert all(p.grad is not None for p in learner.online_parameters())


def test_crops_are_resized_as_asked() -> None:
    images = torch.rand(4, 3, 24, 24)
    found = {}
    for mode in (None, "bilinear", "bicubic"):
        learner = make_pixel_learner(cutout_interpolate_mode=mode)
        found[mode] = [spec.crop.interpolation for spec in learner.preset if spec.crop]
        assert learner.draw_views(images)[0].image.isfinite().all()
    assert found == {None: ["bilinear"] * 2, "bilinear": ["bilinear"] * 2, "bicubic": ["bicubic"] * 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cutout_interpolate_mode": "nearest"}, "interpolation 'nearest'.*bicubic"),
        ({"coord_cutout_interpolate_mode": "bilinear"}, "coordinates are computed exactly"),
        ({"len_dataloader": 7}, "your scheduler's here. total_steps makes tau rise"),
    ],
)
def test_arguments_of_byol_multi_gpu_that_mean_nothing_here(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_pixel_learner(**arguments)
