"""Which images make which batch: every process, worker and start agrees on it."""

import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from byol.augment.apply import geometric
from byol.augment.draw import draw_geometric
from byol.augment.presets import PRESETS, ViewSpec
from byol.augment.views import views
from byol.data.batches import (
    Batch,
    BatchPlan,
    LabelledBatches,
    ResidentBatches,
    StartedBatches,
    streamed_batches,
)
from byol.data.crops import cut
from byol.data.images import TensorImages
from byol.data.source import open_source
from byol.errors import UserError
from byol.randomness import CROPS, derived_generator
from tests.programs import finished


@pytest.mark.parametrize(("accumulate", "processes"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_processes_and_micro_batches_share_out_each_epoch(accumulate: int, processes: int) -> None:
    plans = [BatchPlan(50, 12, accumulate, processes, rank, seed=3) for rank in range(processes)]
    whole = BatchPlan(50, 12, seed=3)
    assert whole.steps_per_epoch == 4
    for step in range(8):
        positions = range(step * accumulate, (step + 1) * accumulate)
        parts = [plan.indices(position) for position in positions for plan in plans]
        assert torch.equal(torch.cat(parts), whole.indices(step))
    for epoch in range(2):
        seen = torch.cat([whole.indices(epoch * 4 + step) for step in range(4)])
        assert len(seen.unique()) == 48


def test_epochs_and_seeds_differ() -> None:
    plan, other = BatchPlan(100, 10, seed=0), BatchPlan(100, 10, seed=1)
    assert not torch.equal(plan.indices(0), plan.indices(10))
    assert not torch.equal(plan.indices(0), other.indices(0))
    assert plan.epoch_of(9) == 0 and plan.epoch_of(10) == 1


def test_batches_can_start_anywhere() -> None:
    plan = BatchPlan(20, 5)
    batches, late = list(ResidentBatches(plan, 0, 9)), list(ResidentBatches(plan, 6, 9))
    assert [batch.position for batch in batches] == list(range(9)) and len(ResidentBatches(plan, 6, 9)) == 3
    for batch, same in zip(batches[6:], late, strict=True):
        assert batch.position == same.position and torch.equal(batch.images, same.images)


def test_labels_are_those_of_the_images() -> None:
    labels = torch.randint(0, 7, (50,), generator=torch.Generator().manual_seed(0))
    plan = BatchPlan(50, 12, accumulate=2, processes=3, rank=1)
    batches = list(LabelledBatches(ResidentBatches(plan, 3, 20), labels, plan))
    assert [batch.position for batch in batches] == list(range(3, 20))
    for batch in batches:
        assert batch.labels is not None and batch.labels.tolist() == [labels[i] for i in batch.images]


def test_errors_tell_what_to_do() -> None:
    with pytest.raises(UserError, match="batch size 11 is larger than the data: 10 images"):
        BatchPlan(10, 11)
    with pytest.raises(UserError, match="multiple of 6"):
        BatchPlan(100, 10, accumulate=2, processes=3)
    with pytest.raises(UserError, match="at least 6"):
        BatchPlan(100, 3, processes=3)


def test_workers_cut_the_same_crops(photographs: Path) -> None:
    images = open_source(f"folder:{photographs}").train
    plan = BatchPlan(len(images), 6)
    loaders = [
        streamed_batches(images, plan, PRESETS["imagenet"], 32, 2, 6, num_workers=workers)
        for workers in (0, 2)
    ]
    for batch, same in zip(*loaders, strict=True):
        assert batch.position == same.position and batch.images.shape == (6, 2, 3, 32, 32)
        assert batch.images.dtype == torch.uint8 and torch.equal(batch.images, same.images)


def test_two_crops_of_an_image_and_two_epochs_differ() -> None:
    images = TensorImages(torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8))
    loader = streamed_batches(images, BatchPlan(4, 4), PRESETS["imagenet"], 32, 0, 2, num_workers=0)
    first, second = loader
    assert not torch.equal(first.images[:, 0], first.images[:, 1])
    order, later = BatchPlan(4, 4).indices(0).tolist(), BatchPlan(4, 4).indices(1).tolist()
    assert not torch.equal(first.images[order.index(0)], second.images[later.index(0)])


def test_cut_equals_torchvision() -> None:
    image = torch.randint(0, 256, (3, 50, 61), dtype=torch.uint8)
    spec = PRESETS["imagenet"][0]
    for seed in range(20):
        drawn = draw_geometric(spec, 1, 50, 61, torch.Generator().manual_seed(seed))
        assert drawn.box is not None
        top, left, height, width = drawn.box[0].tolist()
        bicubic = transforms.InterpolationMode.BICUBIC
        expected = transforms.resized_crop(image, top, left, height, width, [32, 32], bicubic, antialias=True)
        if drawn.flip[0]:
            expected = transforms.horizontal_flip(expected)
        assert torch.equal(cut(image, drawn, spec, 32), expected)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("preset", ["small", "imagenet"])
def test_boxes_and_mirroring_give_the_crops_of_images_of_any_size(
    preset: str, workers: int, photographs: Path
) -> None:
    """torchvision cuts the box out of the image, resizes and mirrors it, and has the same bytes."""
    images = open_source(f"folder:{photographs}").train
    plan = BatchPlan(len(images), 12)
    for batch in streamed_batches(images, plan, PRESETS[preset], 32, 0, 2, num_workers=workers):
        assert batch.boxes.shape == (12, 2, 4) and batch.boxes.dtype == torch.float32
        assert batch.flipped.shape == (12, 2) and 0 < int(batch.flipped.sum()) < 24
        for row, index in enumerate(plan.indices(batch.position).tolist()):
            image = images[index]
            height, width = image.shape[1:]
            for view, spec in enumerate(PRESETS[preset]):
                pixels = batch.boxes[row, view].double() * torch.tensor([width, height, width, height])
                left, top, right, bottom = pixels.round().int().tolist()
                torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-4)
                mode = transforms.InterpolationMode(spec.crop.interpolation)
                box = (top, left, bottom - top, right - left)
                expected = transforms.resized_crop(image, *box, [32, 32], mode, antialias=True)
                if batch.flipped[row, view]:
                    expected = transforms.horizontal_flip(expected)
                assert torch.equal(batch.images[row, view], expected)


@pytest.mark.parametrize("alike", [True, False])
def test_the_same_draw_means_the_same_in_memory_and_from_workers(alike: bool, photographs: Path) -> None:
    """Views of crops and flips alone, from the generator of a worker's item: both at once where alike."""
    images, plan = open_source(f"folder:{photographs}").train, BatchPlan(24, 24, seed=3)
    first, second = (ViewSpec(crop=spec.crop, flip=spec.flip) for spec in PRESETS["small"])
    specs = (first, second if alike else replace(second, flip=0.9))
    (batch,) = streamed_batches(images, plan, specs, 32, 0, 1, num_workers=0)
    for row, index in enumerate(plan.indices(0).tolist()):
        generator = derived_generator(3, CROPS, 0, index)
        if alike:
            pair = images[index].expand(2, -1, -1, -1)
            drawn = draw_geometric(first, 2, *pair.shape[2:], generator)
            made = geometric(pair, drawn, 32, first.crop.interpolation)
            boxes, flips = drawn.source_box(*pair.shape[2:]), drawn.flip
        else:
            both = views(images[index][None], 32, specs, generator, normalize=None, return_geometry=True)
            made, boxes, flips = (
                torch.cat([getattr(view, name) for view in both]) for name in ("image", "box", "flipped")
            )
        assert torch.equal(boxes, batch.boxes[row]) and torch.equal(flips, batch.flipped[row])
        difference = made * 255 - batch.images[row]
        assert float(difference.abs().max()) <= 2  # bytes are rounded twice


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["main", "fork", "spawn"])
def test_a_process_that_leaves_a_loader_in_the_middle_ends(kind: str, tmp_path: Path) -> None:
    """At its exit Python asks the workers to end by SIGTERM, and waits for them: the second time they do."""
    program = """
import multiprocessing, sys
import torch
from byol.augment.presets import PRESETS
from byol.data.batches import BatchPlan, streamed_batches

class Images:
    keys = labels = class_names = None
    def __len__(self): return 64
    def __getitem__(self, index): return torch.zeros(3, 40, 40, dtype=torch.uint8)

left = []

def leave():
    loader = streamed_batches(Images(), BatchPlan(64, 2), PRESETS["small"], 16, 0, 30, num_workers=1)
    left.append(iter(loader))
    print(next(left[-1]).position, flush=True)

if __name__ == "__main__":
    leave()
    if sys.argv[1] != "main":
        process = multiprocessing.get_context(sys.argv[1]).Process(target=leave)
        process.start()
        process.join(200)
        if process.exitcode is None:
            process.kill()
        print(process.exitcode)
"""
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py"), kind]
    done = finished(command, 400)
    expected = "0\n" if kind == "main" else "0\n0\n0\n"
    assert done.returncode == 0 and done.stdout == expected, done.stderr


def test_numbers_for_a_gpu_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    plan = BatchPlan(40, 8)
    (before,) = LabelledBatches(ResidentBatches(plan, 1, 2), torch.arange(40) * 2, plan)
    assert not pinned
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    (batch,) = LabelledBatches(ResidentBatches(plan, 1, 2), torch.arange(40) * 2, plan)
    assert batch.images is pinned[0] and batch.labels is pinned[1]
    assert torch.equal(batch.images, before.images) and torch.equal(batch.labels, before.labels)


def test_started_batches_are_looked_at_without_being_taken() -> None:
    plan = BatchPlan(50, 8, seed=3)
    started = StartedBatches(ResidentBatches(plan, 2, 6))
    assert len(started) == 4 and started.first() is started.first()
    assert [batch.position for batch in started] == [2, 3, 4, 5]
    assert list(started) == []


def test_closing_ends_workers_that_have_more_to_make(photographs: Path) -> None:
    plan = BatchPlan(24, 8, seed=3)
    images = open_source(f"folder:{photographs}").train
    started = StartedBatches(streamed_batches(images, plan, PRESETS["small"], 16, 0, 9, num_workers=2))
    assert len(multiprocessing.active_children()) == 2
    assert started.first().images.shape == (8, 2, 3, 16, 16)
    started.close()
    assert multiprocessing.active_children() == [] and list(started) == []


def test_labels_do_not_keep_workers_from_starting() -> None:
    begun: list[str] = []

    class Batches(list[Batch]):
        def __iter__(self) -> Iterator[Batch]:
            begun.append("begun")
            return super().__iter__()

    plan, labels = BatchPlan(4, 2), torch.tensor([3, 1, 4, 1])
    started = StartedBatches(LabelledBatches(Batches([Batch(0, plan.indices(0))]), labels, plan))
    assert begun == ["begun"]
    (batch,) = started
    assert torch.equal(batch.labels, labels[batch.images])
