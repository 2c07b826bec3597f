"""Where there is no CPU to take a batch apart, views are one graph: compiled, they are what they were."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch

from byol.augment import apply as module
from byol.augment.apply import apply
from byol.augment.draw import draw, draw_photometric
from byol.augment.presets import PRESETS
from byol.augment.transfer import sent, sent_at_once
from byol.augment.views import columns, draw_pair, made_views, standardized
from byol.training.view_makers import _coloured


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_both_views_are_one_graph_off_the_cpu(preset, channels, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    torch.compiler.reset()  # of one function only so many graphs are kept
    images = torch.zeros(8, channels, 32, 36, dtype=torch.uint8, device="meta")
    compiled = torch.compile(made_views, backend="eager", fullgraph=True, dynamic=False)
    for stance in ("default", "fail_on_recompile"):
        draws = draw_pair(PRESETS[preset], images, torch.Generator())
        with torch.compiler.set_stance(stance):
            made = compiled(images, draws, PRESETS[preset], 24, columns("imagenet", images))
        assert [view.shape for view in made] == [(8, channels, 24, 24)] * 2


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_colours_of_streamed_crops_are_one_graph_off_the_cpu(preset, channels, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    torch.compiler.reset()
    crops = torch.zeros(8, 2, channels, 24, 24, dtype=torch.uint8, device="meta")
    compiled = torch.compile(_coloured, backend="eager", fullgraph=True, dynamic=False)
    for stance in ("default", "fail_on_recompile"):
        drawn = [draw_photometric(spec, 8, channels, torch.Generator()) for spec in PRESETS[preset]]
        with torch.compiler.set_stance(stance):
            made = compiled(crops, sent(drawn, crops.device), columns("imagenet", crops[:, 0]))
        assert [view.shape for view in made] == [(8, channels, 24, 24)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_the_compiled_graph_computes_the_same(preset):
    """The accelerator's way through `apply`, run and compiled on the CPU, against the CPU's own way."""
    images = torch.randint(0, 256, (16, 3, 32, 36), dtype=torch.uint8)
    spec = PRESETS[preset][1]
    drawn = draw(spec, 16, 32, 36, 3, torch.Generator().manual_seed(0))
    finish = partial(standardized, columns=columns("imagenet", images))

    def at_once(images, drawn):
        return module._view(images, drawn, module._to_all, 24, "bicubic", finish)

    (unpacked,) = sent_at_once([drawn], images.device)
    compiled = torch.compile(at_once, fullgraph=True, dynamic=False)(images, unpacked)
    difference = (compiled - apply(images, drawn, 24, "bicubic", finish)).abs()
    # A rounding error turns the solarization of the few pixels that lie right at the threshold.
    assert float((difference > 1e-4).float().mean()) < 1e-4
