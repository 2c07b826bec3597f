"""The ways through `apply`: in chunks, in any order, with and without leaving images out."""

import pytest
import torch

from byol.augment import apply as module
from byol.augment.apply import apply, photometric
from byol.augment.draw import draw
from byol.augment.presets import PRESETS

SPECS = [(preset, view) for preset in PRESETS for view in (0, 1)]


def drawn_and_images(preset, view, count=70, channels=3, side=24):
    generator = torch.Generator().manual_seed(view)
    images = torch.rand(count, channels, side, side + 3, generator=generator)
    return draw(PRESETS[preset][view], count, side, side + 3, channels, generator), images


@pytest.mark.parametrize(("preset", "view"), SPECS)
@pytest.mark.parametrize("chunk_bytes", [1, 3 * 24 * 27 * 4 * 7])  # chunks of 1 and of 7 images
def test_chunks_make_no_difference(preset, view, chunk_bytes, monkeypatch):
    drawn, images = drawn_and_images(preset, view)
    together = apply(images, drawn, 20)
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk_bytes)
    torch.testing.assert_close(apply(images, drawn, 20), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("chunk_bytes", [1, 3 * 20 * 20 * 4 * 7, 2**30])
def test_photometric_alone_equals_the_chain(chunk_bytes, monkeypatch):
    drawn, images = drawn_and_images("imagenet", 1)
    cropped = module.geometric(images, drawn.geometric, 20, "bicubic").mul_(255).round_().to(torch.uint8)
    together = module._colours(cropped.float() / 255, drawn.photometric, module._to_all)
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk_bytes)
    torch.testing.assert_close(photometric(cropped, drawn.photometric), together, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("preset", "view"), SPECS)
@pytest.mark.parametrize("channels", [1, 3])
def test_running_every_operation_on_all_images_makes_no_difference(preset, view, channels, monkeypatch):
    """As on an accelerator, where picking images out would make the host wait."""
    drawn, images = drawn_and_images(preset, view, channels=channels)
    picked = apply(images, drawn, 20)
    monkeypatch.setattr(module, "_to_concerned", module._to_all)
    difference = (apply(images, drawn, 20) - picked).abs()
    # A rounding error turns the solarization of the few pixels that lie right at the threshold.
    assert float((difference > 1e-5).float().mean()) < 1e-4


def test_each_row_has_its_own_parameters():
    drawn, images = drawn_and_images("imagenet", 1)
    together = apply(images, drawn, 20)
    backwards = torch.arange(len(images) - 1, -1, -1)
    torch.testing.assert_close(apply(images[backwards], drawn[backwards], 20), together[backwards])


def test_the_images_stay_as_they_are():
    for side in (20, 24):
        drawn, images = drawn_and_images("small", 1, side=side)
        before = images.clone()
        apply(images, drawn, 20)
        assert torch.equal(images, before)


def test_no_images_give_no_views():
    drawn, images = drawn_and_images("imagenet", 1, count=0)
    assert apply(images, drawn, 20).shape == (0, 3, 20, 20)


@pytest.mark.gpu
@pytest.mark.parametrize(("preset", "view"), SPECS)
def test_an_accelerator_gives_the_same_views(preset, view):
    drawn, images = drawn_and_images(preset, view)
    expected = apply(images, drawn, 20)
    ours = apply(images.cuda(), drawn.to(torch.device("cuda")), 20).cpu()
    assert float(((ours - expected).abs() > 1e-4).float().mean()) < 1e-3
