"""Where a view comes from, as a learner gets it: told by pixels whose values are their places."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import byol
from byol.augment.presets import IMAGENET_MEAN, IMAGENET_STD, Crop, ViewSpec
from byol.core.learner import BYOL
from byol.training import building
from byol.types import StepOutput, View
from tests.training.conftest import Recorded

SIZE = 32
SPECS = (
    ViewSpec(crop=Crop(scale=(0.2, 1.0), interpolation="bilinear"), flip=0.5),
    ViewSpec(crop=Crop(scale=(0.5, 0.9), interpolation="bilinear"), flip=0.2),
)
SIDES = {"resident": [(40, 56)], "streamed": [(40, 56), (61, 45), (50, 50)]}
"""Heights and widths of the images, in turn."""


class Witness(BYOL):
    """Takes whole views, and keeps them."""

    takes_views = True
    seen: ClassVar[list[tuple[View, View]]] = []

    def compare_in_turn(self, view1: View, view2: View, share: float = 1.0) -> StepOutput:  # type: ignore[override]
        self.seen.append((view1, view2))
        return super().compare_in_turn(view1.image, view2.image, share)


def places(height: int, width: int) -> Tensor:
    """Return an image [3,H,W]: red tells how far right a pixel is, green how far down."""
    right = ((torch.arange(width) + 0.5) / width).expand(height, width)
    down = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    return (torch.stack([right, down, right]) * 255).round().byte()


def shown(start: Tensor, end: Tensor) -> Tensor:
    """Return the places [B,S] in the source that the pixels of crops from `start` to `end` [B] are of."""
    share = (torch.arange(SIZE) + 0.5) / SIZE
    return start[:, None] + (end - start)[:, None] * share


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_boxes_and_mirroring_are_those_of_the_views(
    kind: str, accumulate: int, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a view shows follows from its box and its mirroring."""
    monkeypatch.setattr(Witness, "seen", [])
    monkeypatch.setattr(building, "BYOL", Witness)
    sides = SIDES[kind]
    images = Recorded([places(*sides[index % len(sides)]) for index in range(48)])
    settings = {**tiny, "image_size": SIZE, "batch_size": 16, "accumulate": accumulate, "num_workers": 0}
    settings |= {"preset": SPECS, "epochs": "3st", "knn_every": "0", "holdout": 0}
    byol.pretrain(images, out=str(tmp_path / "run"), **settings)
    assert len(Witness.seen) == 3 * accumulate
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    for view in (view for pair in Witness.seen for view in pair):
        assert view.image.is_contiguous(memory_format=torch.channels_last)
        assert view.box is not None and view.box.shape == (16 // accumulate, 4)
        assert view.box.dtype == torch.float32 and view.flipped.dtype == torch.bool
        assert view.box.min() >= 0 and view.box.max() <= 1 and len(view.box.unique(dim=0)) > 1
        x0, y0, x1, y1 = view.box.unbind(1)
        across = torch.where(view.flipped[:, None], shown(x0, x1).flip(1), shown(x0, x1))
        pixels = view.image * std + mean
        # At a box's edge the filter is cut off; elsewhere a linear image stays linear. Both its bytes and
        # those of a worker's crop are rounded; a pixel of the source is 1/61 at least.
        inner = slice(4, -4)
        assert float((pixels[:, 0, inner, inner] - across[:, None, inner]).abs().max()) < 0.005
        assert float((pixels[:, 1, inner, inner] - shown(y0, y1)[:, inner, None]).abs().max()) < 0.005
    flips = torch.cat([view.flipped for pair in Witness.seen for view in pair])
    assert 0 < int(flips.sum()) < len(flips)


def test_a_learner_of_images_gets_images(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[object] = []
    original = BYOL.compare_in_turn

    def compare_in_turn(self: BYOL, *views: Any) -> StepOutput:
        got.extend(views[:2])
        return original(self, *views)

    monkeypatch.setattr(BYOL, "compare_in_turn", compare_in_turn)
    byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "epochs": "1st", "knn_every": "0"})
    assert len(got) == 2 and all(isinstance(view, Tensor) for view in got)
