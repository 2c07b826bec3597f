"""How many processes decode, what they have ready, and what happens where shared memory has no room for it.

Containers have 64 MiB of it unless told otherwise: a batch of 128 pairs of views of 224 pixels takes 37.
"""

import gc
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import byol
from byol.augment.presets import PRESETS
from byol.config import PretrainConfig
from byol.data import decoders as module
from byol.data.batches import BatchPlan, streamed_batches
from byol.data.decoders import in_advance
from byol.data.images import TensorImages
from byol.errors import UserError
from byol.evaluation.batches import _affordable, decoded_batches
from byol.training.advice import decoding_advice
from byol.training.preparation import PreparedData
from byol.training.resolution import decoders
from byol.types import Picture

MIB = 2**20
VIEWS = 128 * 2 * 3 * 224 * 224


def share(patch: pytest.MonkeyPatch, size: int) -> None:
    patch.setattr(module, "shared_memory", lambda: size)


@pytest.mark.parametrize(
    ("size", "asked", "piece", "expected"),
    [
        (64 * MIB, 15, VIEWS, (0, 1)),
        (256 * MIB, 15, VIEWS, (1, 1)),
        (1024 * MIB, 15, VIEWS, (11, 1)),
        (2048 * MIB, 15, VIEWS, (15, 1)),
        (64_000 * MIB, 15, VIEWS, (15, 3)),  # 2 GiB of 37 MiB each
        (64_000 * MIB, 16, 2 * VIEWS, (16, 1)),
        (64_000 * MIB, 16, VIEWS // 2, (16, 4)),
        (64_000 * MIB, 1, 4 * VIEWS, (1, 4)),
        (64_000 * MIB, 15, 32 * VIEWS, (15, 1)),
        (64 * MIB, 1, VIEWS // 32, (1, 4)),
        (64_000 * MIB, 0, VIEWS, (0, 4)),
    ],
)
def test_what_is_in_advance_fits(
    size: int, asked: int, piece: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    share(monkeypatch, size)
    workers, ready = in_advance(asked, piece, most=4)
    assert (workers, ready) == expected
    assert not workers or (workers * ready + 2) * piece <= size / 2
    shared = in_advance(asked, piece, 4, sharing=2)
    assert shared[0] == in_advance(asked, 2 * piece, 4)[0] and shared[1] <= ready


def test_a_run_decodes_by_itself_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    images = TensorImages(torch.zeros(200, 3, 8, 8, dtype=torch.uint8))
    streamed = PreparedData("images", images, images, images, None, 3, ())
    plan, config = BatchPlan(200, 128), PretrainConfig(image_size=224, num_workers=5, channels=3, devices="1")
    share(monkeypatch, 64 * MIB)
    monkeypatch.setattr("byol.training.advice.shared_memory", lambda: 64 * MIB)
    assert decoders(config, plan) == (0, 1)
    (line,) = decoding_advice(config, streamed, plan)
    assert "the training process itself decodes" in line and "/dev/shm, 64 MiB" in line and "=1g" in line
    assert not list(decoding_advice(config, replace(streamed, images=images.images), plan))
    assert not list(decoding_advice(replace(config, num_workers=0), streamed, plan))
    assert not list(decoding_advice(replace(config, view_size=64), streamed, plan))
    share(monkeypatch, 256 * MIB)
    (line,) = decoding_advice(config, streamed, plan)
    assert "1 of 5 processes" in line
    # Two processes that share it: of half the images each, and of half the memory.
    halved = BatchPlan(200, 128, processes=2)
    assert decoders(replace(config, devices="2"), halved) == (1, 1)
    assert decoders(replace(config, view_size=112), plan) == (5, 2)


IMAGE = 3 * 64 * 64


class Images:
    """Noise of one size, read one by one."""

    keys = labels = class_names = None

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)


def whole(index: int, picture: Picture) -> Tensor:
    return picture.pixels()


@pytest.mark.parametrize(
    ("lengths", "size", "expected"),
    [
        ([16, 16, 8], 1000 * IMAGE, (16, 3, 2)),
        ([1] * 40, 1000 * IMAGE, (1, 5, 2)),  # dense features of images of many sizes, one by one
        ([0, 1], 1000 * IMAGE, (1, 1, 2)),
        ([300, 20], 10_000 * IMAGE, (128, 4, 2)),
        ([300, 20], 2 * 24 * IMAGE, (2, 5, 2)),
        ([300, 20], 2 * 5 * IMAGE, (1, 3, 1)),
        ([300, 20], 2 * 2 * IMAGE, (1, 0, 1)),
        ([], 1000 * IMAGE, (128, 0, 1)),
    ],
)
def test_pieces_and_workers_of_an_evaluation(
    lengths: list[int], size: int, expected: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    share(monkeypatch, size)
    order = torch.arange(sum(lengths)).split(lengths) if lengths else []
    order = [rows % 40 for rows in order]
    assert _affordable(Images(), whole, order, num_workers=5) == expected


def test_small_pieces_make_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).split(16)
    expected = list(decoded_batches(Images(), whole, order, num_workers=0))
    share(monkeypatch, 12 * IMAGE * 2)  # half of it for 12 images: 2 workers with 2 pieces, 2 more on the way
    assert _affordable(Images(), whole, order, 2) == (2, 2, 2)
    found = list(decoded_batches(Images(), whole, order, num_workers=2))
    assert [len(batch) for batch in found] == [16, 16, 8]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file may grow beyond 100 kB: shared memory consists of files."""
    # How long PyTorch waits for the workers of a loader that has failed.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    gc.collect()


def test_batches_for_training_that_do_not_fit_end_it(full: None) -> None:
    """They were waited for without end: what leaves a worker is moved there by a thread of its own."""
    loader = streamed_batches(Images(), BatchPlan(40, 16), PRESETS["small"], 64, 0, 2, num_workers=1)
    with pytest.raises(UserError, match=r"\(/dev/shm\).* is full"):
        next(iter(loader))


def test_pieces_that_do_not_fit_end_an_evaluation(full: None) -> None:
    with pytest.raises(UserError, match=r"\(/dev/shm\).* is full"):
        next(decoded_batches(Images(), whole, [torch.arange(40)], num_workers=1))


def test_batches_that_do_not_fit_end_a_trainer(full: None, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    trainer = byol.BYOLTrainer(
        net,
        dataset=byol.MockDataset(64, 40),
        image_size=64,
        hidden_layer=-1,
        learning_rate=1e-3,
        num_train_steps=1,
        batch_size=16,
        num_workers=1,
        checkpoint_folder=tmp_path,
    )
    with pytest.raises(UserError, match=r"\(/dev/shm\).* is full"):
        trainer()
