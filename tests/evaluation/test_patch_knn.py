import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.data.masks import PixelClasses
from byol.evaluation import monitor
from byol.evaluation.monitor import PatchMonitor
from byol.evaluation.patch_knn import cell_classes, labelled_cells, patch_knn
from byol.evaluation.pixel_metrics import mean_iou, pixel_accuracy
from tests.scenes import VOID, scenes

CLASSES = PixelClasses(("ground", "red", "blue"), VOID)


def colours() -> Backbone:
    """A network whose map is the mean colour of squares of four pixels, in [0,1]."""
    preprocess = Preprocess(24, mean=(0.0,) * 3, std=(1.0,) * 3)
    return Backbone(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), 24, channels=3, preprocess=preprocess)


@pytest.mark.parametrize(("shape", "grid"), [((12, 20), (3, 5)), ((13, 17), (4, 5)), ((4, 4), (2, 4))])
def test_a_cell_has_the_class_of_most_pixels_under_it(shape: tuple[int, int], grid: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 3, shape, generator=generator, dtype=torch.uint8)
    mask[:, : shape[1] // 2] = VOID
    counts = [[[0, 0, 0] for _ in range(grid[1])] for _ in range(grid[0])]
    for y in range(shape[0]):
        for x in range(shape[1]):
            if mask[y, x] != VOID:
                counts[y * grid[0] // shape[0]][x * grid[1] // shape[1]][int(mask[y, x])] += 1
    expected = [c.index(max(c)) if any(c) else -1 for row in counts for c in row]
    assert -1 in expected and len({*expected}) > 2
    assert cell_classes(mask, grid, CLASSES).tolist() == expected


def test_numbers_that_are_no_class_never_count_as_one() -> None:
    mask = torch.tensor([[0, 3, 3, 3], [1, 1, 200, 200]], dtype=torch.uint8)
    assert cell_classes(mask, (2, 2), CLASSES).tolist() == [0, -1, 1, -1]


def test_votes_equal_scikit_learns() -> None:
    train, scored, backbone = scenes(12), scenes(6, seed=1), colours()
    confusion, settings = patch_knn(backbone, train, scored, CLASSES)
    vectors, labels = [], []
    for part in (train, scored):
        maps = nn.functional.avg_pool2d(part.images.double() / 255, 4)  # [N,3,6,8]
        vectors.append(maps.permute(0, 2, 3, 1).reshape(-1, 3).numpy())
        labels.append(torch.cat([cell_classes(mask, (6, 8), CLASSES) for mask in part.masks]).numpy())
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda d: 2.718281828 ** ((1 - d) / 0.1))
    expected = reference.fit(vectors[0], labels[0]).score(vectors[1], labels[1])
    assert settings == {"k": 20, "temperature": 0.1, "bank": 12 * 48, "queries": 6 * 48}
    assert pixel_accuracy(confusion) == pytest.approx(expected, abs=2 / (6 * 48))  # at most two ties
    assert 0.7 < mean_iou(confusion) < pixel_accuracy(confusion)


def test_cells_are_drawn_evenly_and_the_same_every_time() -> None:
    images, backbone = scenes(10), colours()
    some = [labelled_cells(backbone, images, CLASSES, 100, seed) for seed in (0, 0, 1)]
    assert [len(classes) for _, classes in some] == [100] * 3
    first, again, other = (vectors for vectors, _ in some)
    assert torch.equal(first, again) and not torch.equal(first, other)
    every, _ = labelled_cells(backbone, images, CLASSES, 10_000)
    assert {*map(tuple, first.tolist())} <= {*map(tuple, every.tolist())}


def test_the_monitor_takes_some_images_of_each_set(monkeypatch: pytest.MonkeyPatch) -> None:
    train, holdout, backbone = scenes(20), scenes(10, seed=1), colours()
    whole = PatchMonitor.of(train, holdout, "hf:mine")(backbone)["patch_knn"]
    assert whole == mean_iou(patch_knn(backbone, train, holdout, CLASSES)[0])
    monkeypatch.setattr(monitor, "_MASKED_IMAGES", 4)
    few = [PatchMonitor.of(train, holdout, "hf:mine")(backbone)["patch_knn"] for _ in range(2)]
    assert few[0] == few[1] != whole
