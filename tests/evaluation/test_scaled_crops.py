import pytest
import torch

from byol.data.images import TensorImages
from byol.evaluation import scaled_crops as module
from byol.evaluation.scaled_crops import CropSettings, ScaledCrops, scaled_crops
from tests.scenes import VOID, scenes

PLAIN = ((0.5,) * 3, (0.25,) * 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_at_scale_one_images_are_only_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCALES", (1.0, 1.0))
    part = scenes(12)
    views, classes = scaled_crops(part.images, part.masks, CropSettings((24, 32), PLAIN, VOID), generator())
    expected = (part.images.double() / 255 - 0.5) / 0.25
    mirrored = [not torch.equal(got, mask.long()) for got, mask in zip(classes, part.masks, strict=True)]
    assert {*mirrored} == {True, False}
    for index, mirror in enumerate(mirrored):
        image, mask = expected[index], part.masks[index].long()
        image, mask = (image.flip(2), mask.flip(1)) if mirror else (image, mask)
        torch.testing.assert_close(views[index].double(), image, atol=2e-5, rtol=0)
        assert torch.equal(classes[index], mask)


@pytest.mark.parametrize(
    "settings", [CropSettings((20, 28), PLAIN, VOID), CropSettings((24, 24), PLAIN, 7, True)]
)
def test_pixels_keep_their_class_and_nothing_lies_outside(settings: CropSettings) -> None:
    """Colours tell the class, also after the crop; outside the image is the mean colour and void."""
    masks = scenes(30).masks
    masks[masks == VOID] = 0
    images = (masks.float() * 100).to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
    views, classes = scaled_crops(images, masks, settings, generator())
    assert views.shape == (30, 3, *settings.size) and classes.dtype == torch.int64
    numbers = (views[:, 0] * 0.25 + 0.5) * 255 / 100
    inside = classes != settings.void
    off = (numbers - classes).abs()[inside]
    assert (off < 0.5).double().mean() > 0.93  # edges are blended
    assert 0.05 < (~inside).double().mean() < 0.6
    # Away from the image's edge: zeros, which is the mean colour.
    deep = torch.nn.functional.max_pool2d(inside[:, None].float(), 5, 1, 2)[:, 0] == 0
    assert deep.any() and (views[:, 0][deep] == 0).all()


def test_a_large_scale_shows_a_part_and_a_small_one_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    part = scenes(8)
    settings = CropSettings((24, 32), PLAIN, VOID)
    areas = []
    for scale in (0.5, 1.0, 2.0):
        monkeypatch.setattr(module, "SCALES", (scale, scale))
        marked = torch.ones_like(part.masks)
        _, classes = scaled_crops(part.images, marked, settings, generator())
        areas.append(float((classes == 1).double().mean()))
    assert areas == pytest.approx([0.25, 1, 1], abs=0.01)


@pytest.mark.parametrize("size", [(24, 32), (30, 20)])
def test_decoded_images_do_not_depend_on_workers(size: tuple[int, int]) -> None:
    part = scenes(6)
    settings = CropSettings(size, PLAIN, VOID)
    order = [torch.tensor([4, 1, 0]), torch.tensor([2, 5])]
    batches = []
    for workers in (0, 1):
        crops = ScaledCrops(_Mixed(part), settings, num_workers=workers)
        assert crops.images is None
        batches.append([*crops(3, order), *crops(4, order)])
    for (views, classes), (other, same) in zip(*batches, strict=True):
        assert torch.equal(views, other) and torch.equal(classes, same)
        assert views.shape[1:] == (3, *size) and classes.dtype == torch.int64
    assert not torch.equal(batches[0][0][0], batches[0][2][0])  # another epoch
    memory = ScaledCrops(part, settings)
    assert memory.images is not None and next(iter(memory(0, order)))[0].shape == (3, 3, *size)


class _Mixed:
    """A set whose last image has another size, so that it does not stay in memory."""

    labels = class_names = None

    def __init__(self, part: TensorImages) -> None:
        self.images = [*part.images[:5], torch.zeros(3, 40, 16, dtype=torch.uint8)]
        self.masks = [*part.masks[:5], torch.ones(40, 16, dtype=torch.uint8)]
        self.keys = tuple(map(str, range(6)))

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]
