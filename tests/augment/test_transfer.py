"""Draws sent in one piece are the same draws, bit by bit."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from byol.augment.draw import draw, draw_photometric
from byol.augment.presets import PRESETS
from byol.augment.transfer import sent, sent_at_once

HERE = torch.device("cpu")


def values(part: Any) -> list[Any]:
    """Return all that a draw holds, field by field."""
    found = [getattr(part, field.name) for field in fields(part)]
    return [value for one in found for value in (values(one) if hasattr(one, "semantics") else [one])]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("count", [1, 7, 64])
def test_every_parameter_arrives_bit_by_bit(preset: str, channels: int, count: int) -> None:
    drawn = [
        draw(spec, count, 40, 56, channels, torch.Generator().manual_seed(3)) for spec in PRESETS[preset]
    ]
    colours = [one.photometric for one in drawn]
    for before, after in ((drawn, sent_at_once(drawn, HERE)), (colours, sent_at_once(colours, HERE))):
        pairs = [
            pair
            for old, new in zip(before, after, strict=True)
            for pair in zip(values(old), values(new), strict=True)
        ]
        assert any(isinstance(old, Tensor) for old, _ in pairs)
        storages = set()
        for old, new in pairs:
            if not isinstance(old, Tensor):
                assert new == old
                continue
            assert (new.dtype, new.shape) == (old.dtype, old.shape) and new.is_contiguous()
            assert torch.equal(new.view(torch.uint8), old.contiguous().view(torch.uint8))
            assert new.data_ptr() % 16 == 0
            storages.add(new.untyped_storage().data_ptr())
        assert len(storages) == 1


def test_draws_go_where_they_are_sent() -> None:
    drawn = [draw(spec, 8, 32, 32) for spec in PRESETS["small"]]
    stayed = sent(drawn, HERE)
    assert all(
        new is old
        for one, other in zip(drawn, stayed, strict=True)
        for old, new in zip(one.tensors(), other.tensors(), strict=True)
    )
    for one in (
        sent(drawn, torch.device("meta")),
        sent(sent(drawn, torch.device("meta")), torch.device("meta")),
    ):
        assert all(tensor.is_meta for part in one for tensor in part.tensors())
    nothing = draw_photometric(PRESETS["glyph"][0], 0, 1)
    assert [tensor.shape[0] for tensor in sent_at_once([nothing], HERE)[0].tensors()] == [0, 0]
