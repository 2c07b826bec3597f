"""Small images at 224 pixels, as systems with ImageNet's first layers train on CIFAR-10."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

import byol
from byol.augment.draw import draw
from byol.augment.presets import IMAGENET_MEAN, IMAGENET_STD, Crop, ViewSpec
from byol.data.batches import Batch, BatchPlan
from byol.randomness import VIEWS, derived_generator
from byol.rundir import RunDirectory
from byol.training.checkpoint import load
from byol.training.view_makers import ResidentViews

SIDE = 224


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_views_equal_resized_crops(images: Tensor, interpolation: str) -> None:
    spec = ViewSpec(crop=Crop(interpolation=interpolation), flip=0.5)
    plan = BatchPlan(len(images), 8)
    indices = plan.indices(1)
    views = ResidentViews(images, (spec, spec), SIDE, plan)(Batch(1, indices))
    generator = derived_generator(plan.seed, VIEWS, 1, plan.rank)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    for view in (view.image for view in views):
        drawn = draw(spec, 8, 32, 32, 3, generator).geometric
        assert view.shape == (8, 3, SIDE, SIDE) and drawn.box is not None and 0 < int(drawn.flip.sum()) < 8
        for row, image in enumerate(images[indices].float() / 255):
            box, mode = drawn.box[row].tolist(), tv.InterpolationMode(interpolation)
            expected = tv.resized_crop(image, *box, [SIDE, SIDE], mode, antialias=True).clamp(0, 1)
            expected = tv.horizontal_flip(expected) if drawn.flip[row] else expected
            torch.testing.assert_close(view[row] * std + mean, expected, rtol=0, atol=2e-5)


def test_a_run_steps(images: Tensor, tiny: dict[str, Any], tmp_path: Path) -> None:
    sizes: list[tuple[int, ...]] = []

    def see(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.append(tuple(inputs[0].shape[1:]))

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 7, 8), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
    )
    net.register_forward_pre_hook(see)
    settings = {**tiny, "backbone": net, "image_size": SIDE, "batch_size": 8, "epochs": "2st", "holdout": 0}
    run = byol.pretrain(images, out=str(tmp_path / "run"), **settings)
    state = load(RunDirectory(run.path).last_checkpoint)
    assert state["step"] == 2 and state["config"]["preset"] == "imagenet"
    assert set(sizes) == {(3, SIDE, SIDE)}
