import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image
from torch import Tensor

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.data.folder import FileImages, open_folder
from byol.data.images import Subset, TensorImages
from byol.data.source import Source
from byol.errors import UserError
from byol.evaluation import batches as batches_module
from byol.evaluation.baselines import pixel_preprocess
from byol.evaluation.batches import preprocessed_batches
from byol.evaluation.features import cached, extract, fingerprint, image_digest
from byol.types import Features, ImageSet

MakeBackbone = Callable[..., Backbone]


class Ragged:
    """Images of different sizes, one of which may be unreadable."""

    def __init__(self, broken: int | None = None) -> None:
        self.keys = [f"image{index}" for index in range(11)]
        self.labels = torch.arange(11) % 3
        self.class_names = ["a", "b", "c"]
        self.broken = broken

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> Tensor:
        if index == self.broken:
            raise UserError(f"cannot read image{index}")
        generator = torch.Generator().manual_seed(index)
        return torch.randint(256, (1, 8 + index % 3, 9), generator=generator, dtype=torch.uint8)


def snapshot(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def test_vectors_equal_one_image_at_a_time_in_order(
    backbone: Backbone, digits: Source, preprocess: Preprocess
) -> None:
    images = Subset(digits.train, torch.arange(70))
    found = extract(backbone.train(), preprocess, images, batch_size=16)
    backbone.eval()
    with torch.no_grad():
        expected = torch.cat([backbone(preprocess(images[index])[None]) for index in range(70)])
    torch.testing.assert_close(found.vectors, expected)
    assert found.vectors.shape == (70, backbone.num_features)
    assert list(found.keys) == list(images.keys)
    assert found.labels is not None
    assert torch.equal(found.labels, images.labels)


def test_images_are_passed_in_batches(backbone: Backbone, digits: Source, preprocess: Preprocess) -> None:
    """Nebulised/BYOL-Pytorch passes test images one by one."""
    sizes: list[int] = []
    backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    extract(backbone, preprocess, Subset(digits.train, torch.arange(300)))
    assert sizes == [256, 44]


def test_state_is_bit_identical_and_modes_come_back(
    backbone: Backbone, digits: Source, preprocess: Preprocess
) -> None:
    before = snapshot(backbone)
    backbone.train()
    backbone.net[1].eval()
    modes = [part.training for part in backbone.modules()]
    random_state = torch.get_rng_state()
    extract(backbone, preprocess, Subset(digits.train, torch.arange(50)))
    assert [part.training for part in backbone.modules()] == modes
    after = backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_of_different_sizes_are_decoded_one_by_one(
    backbone: Backbone, num_workers: int, preprocess: Preprocess
) -> None:
    random_state = torch.get_rng_state()
    found = extract(backbone, preprocess, Ragged(), batch_size=4, num_workers=num_workers)
    backbone.eval()
    with torch.no_grad():
        expected = torch.cat([backbone(preprocess(Ragged()[index])[None]) for index in range(11)])
    torch.testing.assert_close(found.vectors, expected)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image_is_one_line(
    backbone: Backbone, num_workers: int, preprocess: Preprocess
) -> None:
    with pytest.raises(UserError, match=r"^cannot read image5$"):
        extract(backbone, preprocess, Ragged(broken=5), num_workers=num_workers)


def test_batches_follow_the_order(digits: Source, preprocess: Preprocess) -> None:
    order = torch.tensor([5, 2, 9])
    batches = list(preprocessed_batches(digits.train, preprocess, order, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 1]
    torch.testing.assert_close(batches[1][0], preprocess(digits.train[9]))


def pixels(images: ImageSet, size: int) -> Features:
    return extract(torch.nn.Flatten(), pixel_preprocess(images, size), images)


def test_pixels_are_the_image(digits: Source) -> None:
    images = Subset(digits.train, torch.arange(9))
    expected = torch.stack([images[index].flatten() / 255 for index in range(9)])
    torch.testing.assert_close(pixels(images, 8).vectors, expected)
    assert pixels(Ragged(), 4).vectors.shape == (11, 16)


def test_cache_returns_what_was_computed_once(tmp_path: Path, digits: Source) -> None:
    images = Subset(digits.train, torch.arange(9))
    calls = []

    def compute() -> Features:
        calls.append(1)
        return pixels(images, 8)

    first = cached(tmp_path, "key", images, compute)
    second = cached(tmp_path, "key", images, compute)
    assert len(calls) == 1
    assert torch.equal(first.vectors, second.vectors)
    assert second.labels is not None
    assert list(second.keys) == list(images.keys)
    assert [file.name for file in tmp_path.iterdir()] == ["key.safetensors"]


@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_a_broken_cache_is_computed_again(tmp_path: Path, digits: Source, content: bytes | None) -> None:
    images = Subset(digits.train, torch.arange(9))
    file = tmp_path / "key.safetensors"
    cached(tmp_path, "key", images, lambda: pixels(images, 8))
    file.write_bytes(file.read_bytes()[:-40] if content is None else content)
    again = cached(tmp_path, "key", images, lambda: pixels(images, 8))
    assert torch.equal(again.vectors, pixels(images, 8).vectors)
    assert torch.equal(cached(tmp_path, "key", images, _never).vectors, again.vectors)


def test_a_cache_of_another_length_is_computed_again(tmp_path: Path, digits: Source) -> None:
    few, more = (Subset(digits.train, torch.arange(count)) for count in (3, 5))
    cached(tmp_path, "key", few, lambda: pixels(few, 8))
    assert len(cached(tmp_path, "key", more, lambda: pixels(more, 8)).vectors) == 5


def test_fingerprint_covers_weights_preprocessing_and_images(
    backbone: Backbone, digits: Source, preprocess: Preprocess, make_backbone: MakeBackbone
) -> None:
    images = digits.train
    assert isinstance(images, TensorImages)

    def key(**changes: object) -> str:
        values = {
            "backbone": backbone,
            "preprocess": preprocess,
            "image_set": images,
            "data": "d",
            "split": "s",
        }
        return fingerprint(**{**values, **changes})  # type: ignore[arg-type]

    original = key()
    assert key() == original
    assert key(backbone=make_backbone()) == original
    changed = images.images.clone()
    changed[700, 0, 3, 3] ^= 1
    keys = [f"other{index}" for index in range(len(images))]
    others = [
        key(backbone=make_backbone(seed=1)),
        key(preprocess=Preprocess(8, (0.3,), (0.36,))),
        key(image_set=TensorImages(changed, images.labels, images.class_names, images.keys)),
        key(image_set=TensorImages(images.images, images.labels, images.class_names, keys)),
        key(image_set=Subset(images, torch.arange(10))),
        key(data="e"),
        key(split="t"),
        key(image_set=Ragged()),
    ]
    moved = make_backbone()
    moved.net[1].running_mean[0] += 1e-7
    others.append(key(backbone=moved))
    assert len({original, *others}) == len(others) + 1


def test_fingerprint_covers_each_of_many_large_images(tmp_path: Path) -> None:
    """Of such sets a sample is read: bytes of tensors are in memory, and files tell when they changed."""
    images = torch.zeros(600, 1, 129, 129, dtype=torch.uint8)
    net, preprocess = torch.nn.Identity(), Preprocess(8, (0.5,), (0.5,))
    part = torch.arange(1, 600)  # every second one of them is in the sample

    def key() -> str:
        return fingerprint(net, preprocess, Subset(TensorImages(images), part), "d", "s")

    before = key()
    images[2, 0, 5, 5] = 1
    assert key() != before
    for number in range(600):
        Image.new("L", (8 + number % 2, 8)).save(tmp_path / f"{number:03}.png")
    files = open_folder(tmp_path, channels=1).train
    before, digest = fingerprint(net, preprocess, files, "d", "s"), image_digest(files, preprocess)
    assert fingerprint(net, preprocess, files, "d", "s") == before
    os.utime(tmp_path / "003.png", ns=(1, 1))
    assert fingerprint(net, preprocess, files, "d", "s") != before
    assert image_digest(files, preprocess) == digest  # copies are the same images


def test_known_vectors_of_files_are_found_without_reading_them(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (200, 150), (number, 0, 0)).save(tmp_path / f"{number}.png")
    files = open_folder(tmp_path).train
    net, preprocess = torch.nn.Identity(), Preprocess(8, (0.5,), (0.5,))
    with mock.patch.object(
        FileImages, "__getitem__", autospec=True, side_effect=FileImages.__getitem__
    ) as read:
        fingerprint(net, preprocess, files, "d", "s")
    assert read.call_count <= 1  # the first one, which tells that they are large


def test_a_bar_is_for_terminals_that_ask_for_it(
    preprocess: Preprocess, monkeypatch: pytest.MonkeyPatch, digits: Source
) -> None:
    images = Subset(digits.train, torch.arange(9))
    monkeypatch.setenv("TERM", "xterm")
    for is_terminal, name, shown in (
        (True, "train images", True),
        (True, None, False),
        (False, "train", False),
    ):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        extract(torch.nn.Flatten(), preprocess, images, shown_as=name)
        assert ("train images" in stream.getvalue() and "9/9" in stream.getvalue()) == shown
        assert shown or not stream.getvalue()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_make_batches_in_pieces(
    num_workers: int, preprocess: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "_PIECE", 2)
    order = torch.tensor([5, 2, 9, 0, 7, 1, 3])
    found = list(preprocessed_batches(Ragged(), preprocess, order, batch_size=5, num_workers=num_workers))
    assert [len(batch) for batch in found] == [5, 2]
    expected = torch.stack([preprocess(Ragged()[row]) for row in order.tolist()])
    torch.testing.assert_close(torch.cat(found), expected)


def test_large_tensors_are_taken_in_batches_as_they_lie(preprocess: Preprocess) -> None:
    """Not one by one through a loader, as files are."""
    images = torch.randint(0, 256, (5, 1, 140, 130), dtype=torch.uint8)
    chosen, order = Subset(TensorImages(images), [4, 2, 0, 1]), torch.tensor([3, 0, 1])
    with mock.patch("byol.evaluation.batches.decoded_batches", side_effect=AssertionError):
        found = torch.cat(list(preprocessed_batches(chosen, preprocess, order, batch_size=2)))
    torch.testing.assert_close(found, torch.stack([preprocess(images[row]) for row in (1, 4, 2)]))


def _never() -> Features:
    raise AssertionError("must come from the cache")


def test_saved_networks_know_their_images_again() -> None:
    """Their folders hold this digest: it may not change from version to version."""
    images = TensorImages(torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4))
    digest = image_digest(images, Preprocess(4, mean=(0.5,) * 3, std=(0.25,) * 3))
    assert digest == "9b1dd03c5fd9728913f5f243867d15de51e18c05ff4fb0319af79cd14841256b"
