import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from byol.augment.draw import draw_geometric
from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.data.images import Subset, TensorImages
from byol.data.source import Source, open_source
from byol.evaluation import augmented
from byol.evaluation.augmented import CROP_AND_FLIP, RandomCrops, augmented_training
from byol.evaluation.linear import full_batches
from byol.randomness import CROPS, derived_generator

INDICES = torch.arange(100, 180)


def collected(training: augmented.Training, epoch: int) -> tuple[Tensor, Tensor]:
    vectors, labels = zip(*training(INDICES)(epoch), strict=True)
    return torch.cat(vectors), torch.cat(labels)


@pytest.mark.parametrize("in_memory", [True, False])
def test_views_change_with_the_epoch_and_repeat(
    digits: Source, preprocess: Preprocess, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr(augmented, "resident", lambda images: None)
    training = augmented_training(nn.Flatten(), preprocess, digits.train, seed=4)
    state = torch.get_rng_state()
    first, labels = collected(training, 0)
    again, _ = collected(training, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    order = torch.cat(list(full_batches(len(INDICES), 4, 0)))
    assert digits.train.labels is not None
    assert torch.equal(labels, digits.train.labels[INDICES][order])
    other, _ = collected(training, 1)
    order_other = torch.cat(list(full_batches(len(INDICES), 4, 1)))
    moved = (first[order.argsort()] - other[order_other.argsort()]).abs().amax(dim=1)
    assert (moved > 0.1).float().mean() > 0.95


def test_workers_change_nothing(
    digits: Source, preprocess: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augmented, "resident", lambda images: None)
    make = partial(augmented_training, nn.Flatten(), preprocess, digits.train)
    torch.testing.assert_close(collected(make(num_workers=2), 3)[0], collected(make(), 3)[0])


def test_files_are_cropped_as_torchvision_crops(photographs: Path) -> None:
    """To the byte, for crops that the same draw gives."""
    images = open_source(f"folder:{photographs}").train
    prepare = Preprocess(16, mean=(0.2, 0.4, 0.6), std=(0.5, 0.25, 0.2))
    crops, order = RandomCrops(images, prepare, seed=4), torch.randperm(len(images)).split(7)
    for rows, (views, labels) in zip(order, crops(2, order), strict=True):
        assert torch.equal(labels, images.labels[rows])
        for row, view in zip(rows.tolist(), views, strict=True):
            image, generator = images[row], derived_generator(4, CROPS, 2, row)
            drawn = draw_geometric(CROP_AND_FLIP, 1, *image.shape[1:], generator)
            bicubic = tv.InterpolationMode.BICUBIC
            expected = tv.resized_crop(image, *drawn.box[0].tolist(), [16, 16], bicubic, antialias=True)
            expected = tv.horizontal_flip(expected) if drawn.flip[0] else expected
            expected = tv.normalize(
                tv.to_dtype(expected, torch.float32, scale=True), prepare.mean, prepare.std
            )
            torch.testing.assert_close(view, expected)


def test_crop_and_flip_are_the_whole_augmentation(digits: Source, preprocess: Preprocess) -> None:
    images = Subset(digits.train, INDICES)
    vectors, _ = collected(augmented_training(nn.Flatten(), preprocess, digits.train), 0)
    pixels = vectors * 0.35 + 0.3
    assert pixels.min() > -1e-5
    assert pixels.max() < 1 + 1e-5
    originals = torch.stack([images[index].flatten() / 255 for index in range(len(images))])
    assert pixels.mean() == pytest.approx(float(originals.mean()), abs=0.1)


def test_half_of_the_crops_are_mirrored(preprocess: Preprocess) -> None:
    rising = torch.arange(8, dtype=torch.uint8).mul(30).expand(400, 1, 8, 8)
    images = TensorImages(rising, torch.zeros(400, dtype=torch.int64))
    training = augmented_training(nn.Flatten(), preprocess, images)
    views = torch.cat([vectors for vectors, _ in training(torch.arange(400))(0)]).view(400, 8, 8)
    mirrored = float((views[:, 4, 0] > views[:, 4, 7]).float().mean())
    assert abs(mirrored - 0.5) < 4 * math.sqrt(0.25 / 400)


def test_the_network_stays_as_it_is(backbone: Backbone, digits: Source, preprocess: Preprocess) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    collected(augmented_training(backbone.train(), preprocess, digits.train), 0)
    assert backbone.net[1].training
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())
