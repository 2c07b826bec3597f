import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from byol.evaluation.pixel_head import PixelHeads, Scale, _losses, _some_places, fit_pixel_heads

VOID = 9


def maps_and_masks(count: int = 20, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Return maps [3,6,8] whose first feature tells the class of the pixels [24,32] under a cell."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, 2, (count, 6, 8), generator=generator)
    maps = torch.randn(count, 3, 6, 8, generator=generator)
    maps[:, 0] = 100 + 8.0 * cells
    masks = cells.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8)
    masks[:, :3] = VOID
    return list(maps), list(masks)


def test_losses_are_those_of_the_upsampled_logits_at_some_pixels() -> None:
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(4, 5, 6, 7, generator=generator)
    masks = torch.randint(0, 3, (4, 25, 43), generator=generator, dtype=torch.uint8)
    masks[masks == 2] = VOID
    masks[0] = VOID
    heads = PixelHeads(torch.randn(2, 3, 5, generator=generator), torch.randn(2, 3, generator=generator))
    groups = iter([(maps[:1], masks[:1]), (maps[1:], masks[1:])])
    found = _losses(heads, groups, VOID, torch.Generator().manual_seed(2))
    # The first group, all of it void, draws first.
    draws = torch.Generator().manual_seed(2)
    _, (down, across) = [(_some_places(25, 6, draws), _some_places(43, 7, draws)) for _ in range(2)]
    rows, columns = range(25)[down], range(43)[across]
    assert len(rows) in (12, 13) and len(columns) in (14, 15)
    for index, loss in enumerate(found):
        total, count = 0.0, 0
        logits = F.conv2d(maps.double(), heads.weight[index, :, :, None, None].double())
        logits = F.interpolate(logits + heads.bias[index, :, None, None], (25, 43), mode="bilinear")
        for image in range(1, 4):
            for y in rows:
                for x in columns:
                    if masks[image, y, x] != VOID:
                        total -= float(logits[image, :, y, x].log_softmax(0)[int(masks[image, y, x])])
                        count += 1
        assert float(loss) == pytest.approx(total / count, rel=1e-5)


def test_every_pixel_is_taken_at_some_offset() -> None:
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(40):
        seen |= {*range(32)[_some_places(32, 4, generator)]}
    assert seen == {*range(32)}
    assert range(6)[_some_places(6, 8, generator)] == range(6)  # a map finer than the mask


def test_what_a_cell_tells_is_learned_from_its_pixels() -> None:
    maps, masks = maps_and_masks()
    heads = fit_pixel_heads(maps, masks, 2, VOID, rates=[1e-4, 0.1], epochs=20)
    test, truth = maps_and_masks(10, seed=1)
    logits = heads.logits(torch.stack(test))  # [L,B,K,h,w]: of the maps as they are
    centres = torch.stack(truth)[:, 6::4, 2::4]  # pixels in the middle of cells
    right = (logits.argmax(dim=2)[:, :, 1:] == centres).double().mean(dim=(1, 2, 3))
    assert right[1] > 0.98


def test_how_often_a_class_occurs_is_learned_where_maps_tell_nothing() -> None:
    maps, noise = list(torch.zeros(20, 3, 6, 8)), torch.rand(20, 24, 32, generator=torch.Generator())
    heads = fit_pixel_heads(maps, list((noise < 0.25).to(torch.uint8)), 2, VOID, rates=[0.3], epochs=30)
    assert (heads.bias[0, 0] - heads.bias[0, 1]).item() == pytest.approx(math.log(3), abs=0.05)


def test_each_rate_learns_as_if_alone_also_beside_one_that_diverges() -> None:
    maps, masks = maps_and_masks(20)
    together = fit_pixel_heads(maps, masks, 2, VOID, rates=[0.05, float("inf")], epochs=2)
    alone = fit_pixel_heads(maps, masks, 2, VOID, rates=[0.05], epochs=2)
    torch.testing.assert_close(together.weight[:1], alone.weight, rtol=1e-4, atol=1e-6)
    assert not together.weight[1].isfinite().all()


def test_maps_of_different_sizes_learn_together() -> None:
    maps, masks = maps_and_masks()
    maps[3], masks[3] = maps[3][:, :4, :5], masks[3][:16, :20]
    heads = fit_pixel_heads(maps, masks, 2, VOID, rates=[0.1], epochs=2)
    assert heads.weight.isfinite().all()


def test_scale_is_that_of_all_places() -> None:
    maps = [torch.randn(3, 4, 5) * 5 + 2, torch.randn(3, 2, 2)]
    maps[0][1], maps[1][1] = 7.0, 7.0
    every = torch.cat([features.flatten(1) for features in maps], dim=1)
    scale = Scale.of(maps)
    torch.testing.assert_close(scale.mean, every.mean(dim=1))
    expected = every.std(dim=1, correction=0)
    expected[1] = 1
    torch.testing.assert_close(scale.std, expected)
