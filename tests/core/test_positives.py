"""Which cells of two views show the same spot: against loops in Python, and against what the pixels show."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from byol.augment.presets import Crop, ViewSpec
from byol.augment.views import views
from byol.core.positives import positive_pairs
from byol.errors import UserError
from byol.types import View
from tests.core.pixel_loops import looped_pairs, random_views, with_box


@pytest.mark.parametrize("grid", [(7, 7), (3, 5), (6, 2), (4, 4)])
@pytest.mark.parametrize("threshold", [0.2, 0.7, 1.5])
def test_it_is_a_loop_over_places(grid: tuple[int, int], threshold: float) -> None:
    view1, view2 = random_views(8, 1, torch.Generator().manual_seed(sum(grid)))
    assert view1.flipped.any() and not view1.flipped.all()
    found = positive_pairs(view1, view2, grid, threshold)
    assert found.dtype == torch.bool and torch.equal(found, looped_pairs(view1, view2, grid, threshold))
    assert found.any() and not found.all()
    assert torch.equal(positive_pairs(view2, view1, grid, threshold), found.transpose(1, 2))


def test_the_paper_s_threshold_is_the_default() -> None:
    pair = random_views(4, 1, torch.Generator().manual_seed(0))
    assert torch.equal(positive_pairs(*pair, (4, 4)), looped_pairs(*pair, (4, 4), 0.7))


def test_a_view_and_itself_match_place_by_place() -> None:
    """At 0.7 diagonals a square cell matches itself alone: the next one is 0.707 away."""
    view, _ = random_views(4, 1, torch.Generator().manual_seed(1))
    square = with_box(view, slice(None), (0.1, 0.3, 0.7, 0.9))
    assert torch.equal(positive_pairs(square, square, (5, 5)), torch.eye(25).bool().expand(4, 25, 25))
    assert not torch.equal(
        positive_pairs(square, square, (5, 5), 0.71), torch.eye(25).bool().expand(4, 25, 25)
    )


def test_a_mirrored_view_matches_column_by_column() -> None:
    view, _ = random_views(1, 1, torch.Generator().manual_seed(1))
    view = with_box(view, slice(None), (0.0, 0.0, 1.0, 1.0))
    plain, mirrored = (replace(view, flipped=torch.tensor([flipped])) for flipped in (False, True))
    found = positive_pairs(plain, mirrored, (2, 3), 0.5)[0]
    assert found.nonzero().tolist() == [[0, 2], [1, 1], [2, 0], [3, 5], [4, 4], [5, 3]]


def test_crops_without_a_common_spot_have_none() -> None:
    view1, view2 = random_views(3, 1, torch.Generator().manual_seed(2))
    view1 = with_box(view1, slice(1, 2), (0.0, 0.0, 0.3, 0.3))
    view2 = with_box(view2, slice(1, 2), (0.6, 0.6, 1.0, 1.0))
    assert positive_pairs(view1, view2, (4, 4)).any(dim=2).any(dim=1).tolist() == [True, False, True]


def test_cells_are_where_the_pixels_say() -> None:
    """Pixels that hold their own place in the image, averaged over each cell of a view, are its centre."""
    side, grid = 96, (4, 4)
    places = (torch.arange(side) + 0.5) / side
    image = torch.stack(
        [places.expand(side, side), places[:, None].expand(side, side), torch.zeros(side, side)]
    )
    spec = ViewSpec(crop=Crop(interpolation="bilinear"), flip=0.5)
    generator = torch.Generator().manual_seed(3)
    pair = views(
        image.expand(16, 3, side, side), 64, (spec, spec), generator, normalize=None, return_geometry=True
    )
    found = positive_pairs(*pair, grid)
    centres = [F.adaptive_avg_pool2d(view.image[:, :2], grid).flatten(2).transpose(1, 2) for view in pair]
    distance = torch.cdist(*centres, compute_mode="donot_use_mm_for_euclid_dist")  # [B,16,16]
    diagonal = torch.stack([diagonal_of(view) for view in pair]).amax(0) / 4
    share = distance / diagonal[:, None, None]
    certain = (share - 0.7).abs() > 0.03  # resampling is as exact
    assert certain.float().mean() > 0.9 and found.any()
    assert torch.equal(found[certain], (share < 0.7)[certain])


def diagonal_of(view: View) -> torch.Tensor:
    assert view.box is not None
    return (view.box[:, 2:] - view.box[:, :2]).norm(dim=1)


def test_views_of_an_affine_are_refused() -> None:
    pair = views(torch.rand(2, 1, 28, 28), 28, "glyph", return_geometry=True)
    with pytest.raises(UserError, match="do not tell which part of the image they show") as caught:
        positive_pairs(*pair, (4, 4))
    assert "\n" not in str(caught.value)
