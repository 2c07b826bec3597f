"""`byol.views`: what a caller gives and gets."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as tv

from byol.augment import views as module
from byol.augment.presets import IMAGENET_MEAN, IMAGENET_STD, PRESETS, Crop, ViewSpec
from byol.augment.views import views
from byol.errors import UserError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bytes_of(count=4, channels=3, height=30, width=40):
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator(9))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_image_has_its_own_two_views(preset):
    batch = bytes_of(1).expand(8, -1, -1, -1)
    first, second = views(batch, 32, preset, generator())
    together = torch.cat([first, second])
    for left in range(16):
        for right in range(left):
            assert not torch.allclose(together[left], together[right], atol=1e-3)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_generator_s_state_decides(preset):
    batch = bytes_of()
    left, right, other = (views(batch, 32, preset, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(left[0], right[0]) and torch.equal(left[1], right[1])
    assert not torch.equal(left[0], other[0])


def test_a_given_generator_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    views(bytes_of(), 32, "imagenet", generator())
    assert torch.equal(torch.get_rng_state(), before)
    views(bytes_of(), 32, "imagenet")
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("preset", PRESETS)
def test_bytes_and_floats_agree(preset):
    batch = bytes_of()
    of_bytes = views(batch, 32, preset, generator())[0]
    of_floats = views(batch.double() / 255, 32, preset, generator())[0]
    torch.testing.assert_close(of_bytes, of_floats, rtol=0, atol=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels(preset, channels):
    for view in views(bytes_of(5, channels, 33, 21), 24, preset, generator(), normalize=None):
        assert view.shape == (5, channels, 24, 24) and view.dtype == torch.float32
        assert view.is_contiguous()
        assert float(view.min()) >= 0 and float(view.max()) <= 1


def test_normalization():
    plain = views(bytes_of(), 32, "small", generator(), normalize=None)[0]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(views(bytes_of(), 32, "small", generator())[0], (plain - mean) / std)
    own = views(bytes_of(), 32, "small", generator(), normalize=([0.5, 0.4, 0.3], [0.1, 0.2, 0.3]))[0]
    torch.testing.assert_close(own[:, 2], (plain[:, 2] - 0.3) / 0.3)
    grey = views(bytes_of(4, 1), 32, "small", generator(), normalize=None)[0]
    expected = (grey - 0.449) / 0.226
    torch.testing.assert_close(views(bytes_of(4, 1), 32, "small", generator())[0], expected)


def test_boxes_and_flips_tell_where_a_view_comes_from():
    batch = bytes_of(16).float() / 255
    plain = ViewSpec(crop=Crop(interpolation="bilinear"), flip=0.5)
    for view in views(batch, 32, (plain, plain), generator(), normalize=None, return_geometry=True):
        assert view.flipped.any() and not view.flipped.all()
        edges = (view.box * torch.tensor([40, 30, 40, 30])).round().long().tolist()
        for row, (left, top, right, bottom) in enumerate(edges):
            cut = batch[row, :, top:bottom, left:right]
            by_hand = tv.resize(cut, [32, 32], antialias=True)
            by_hand = tv.horizontal_flip(by_hand) if view.flipped[row] else by_hand
            torch.testing.assert_close(view.image[row], by_hand, rtol=0, atol=1e-4)


def test_geometry_does_not_change_the_views():
    plain = views(bytes_of(), 32, "small", generator())
    full = views(bytes_of(), 32, "small", generator(), return_geometry=True)
    assert torch.equal(plain[0], full[0].image) and torch.equal(plain[1], full[1].image)


def test_a_glyph_has_no_box_and_a_whole_image_has_all_of_it():
    first, second = views(bytes_of(4, 1), 32, "glyph", generator(), return_geometry=True)
    assert first.box is None and second.box is None
    assert not first.flipped.any()
    whole, _ = views(bytes_of(), 32, (ViewSpec(), ViewSpec()), generator(), return_geometry=True)
    assert torch.equal(whole.box, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(4, 4))


def test_pixels_keep_their_precision_under_autocast():
    expected = views(bytes_of(), 32, "imagenet", generator())[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(views(bytes_of(), 32, "imagenet", generator())[0], expected)


def test_floats_out_of_range_warn_once_and_are_clamped(monkeypatch):
    monkeypatch.setattr(module, "_range_checked", False)
    batch = bytes_of().float()
    plain = ViewSpec(crop=Crop(interpolation="bilinear"))
    with pytest.warns(UserWarning, match=r"should lie in \[0,1\].*divide by 255"):
        first, _ = views(batch, 32, (plain, plain), generator(), normalize=None)
    assert float(first.max()) <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        views(batch, 32, "small", generator())


def test_floats_out_of_range_warn_also_after_others(monkeypatch):
    monkeypatch.setattr(module, "_range_checked", False)
    views(bytes_of().float() / 255, 32, "small", generator())
    with pytest.warns(UserWarning, match=r"reach from 0 to 2\d\d"):
        views(bytes_of().float(), 32, "small", generator())


def test_floats_in_range_do_not_warn(monkeypatch):
    monkeypatch.setattr(module, "_range_checked", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        views(bytes_of().float() / 255, 32, "small", generator())


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3, 32, 32), r"must be \[B,C,H,W\].*\(3, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), "must be uint8 or float.*int64"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.bool), "must be uint8 or float.*bool"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        views(batch, 32)


def test_an_unknown_preset_is_answered_with_the_closest():
    with pytest.raises(UserError, match=r"imagnet.*imagenet"):
        views(bytes_of(), 32, "imagnet")


def test_names_and_values_give_the_views_of_the_preset_they_come_to():
    drawn = [
        views(bytes_of(), 32, preset, torch.Generator().manual_seed(0))
        for preset in ({"base": "small", "flip": 0.5}, PRESETS["small"], "small")
    ]
    for other in drawn[1:]:
        assert all(map(torch.equal, drawn[0], other))


@pytest.mark.parametrize("preset", [[1, 2], None, 3, ("small", "small")])
def test_what_is_no_preset_is_told_in_one_line(preset):
    with pytest.raises(UserError, match="it must be a name, two ViewSpecs, or names and values") as caught:
        views(bytes_of(), 32, preset)
    assert "\n" not in str(caught.value)


class _InWorker(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return views(bytes_of(), 32, "imagenet", generator(index))[0]


def test_a_worker_of_a_loader_makes_the_same_views():
    made = list(DataLoader(_InWorker(), batch_size=None, num_workers=1))
    for index, view in enumerate(made):
        torch.testing.assert_close(view, _InWorker()[index], rtol=0, atol=1e-5)
