"""Image sets in memory, parts, concatenations, residency and the skipping pass."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from byol.data.dataset_images import DatasetImages
from byol.data.decode import UnreadableImage, decode
from byol.data.images import Concatenation, Subset, TensorImages, natural_side, resident
from byol.data.opened import Source, skip_unreadable, without_unreadable
from byol.errors import UserError

BYTES = torch.randint(0, 256, (6, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
NAMES = ["ant", "bee", "cow"]


class Listed(Dataset):
    """A dataset of ready-made samples that counts how often it is read."""

    def __init__(self, samples):
        self.samples = samples
        self.reads = 0

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.reads += 1
        return self.samples[index]


class Broken(TensorImages):
    """A set whose images 1 and 3 cannot be read."""

    def __getitem__(self, index):
        return decode(b"", name=self.keys[index]) if index in (1, 3) else super().__getitem__(index)


def same(first, second):
    return len(first) == len(second) and all(torch.equal(first[i], second[i]) for i in range(len(first)))


def test_tensor_images():
    images = TensorImages(BYTES, LABELS.to(torch.uint8), NAMES)
    assert len(images) == 6
    assert torch.equal(images[4], BYTES[4])
    assert list(images.keys) == ["0", "1", "2", "3", "4", "5"]
    assert images.labels.dtype == torch.int64
    assert list(images.class_names) == NAMES
    plain = TensorImages(BYTES)
    assert plain.labels is None
    assert plain.class_names is None
    assert list(TensorImages(BYTES, LABELS).class_names) == ["0", "1", "2"]
    assert list(TensorImages(BYTES, keys=list("abcdef")).keys) == list("abcdef")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((BYTES.float(),), r"uint8 tensor \[N,C,H,W\].* not torch.float32 \[6, 3, 4, 5\]"),
        ((BYTES[0],), r"not torch.uint8 \[3, 4, 5\]"),
        ((BYTES, LABELS[:5]), r"6 images need labels of shape \[6\], not \[5\]"),
        ((BYTES, LABELS.float()), r"whole numbers"),
        ((BYTES, LABELS - 1), r"0\.\.classes-1, not -1 to 1"),
        ((BYTES, LABELS * 10**6), r"renumber"),
        ((BYTES, LABELS, NAMES[:2]), r"labels reach 2, but there are 2 class names"),
        ((BYTES, None, None, ["a"]), r"6 images need as many keys, not 1"),
    ],
)
def test_tensor_images_refuses(arguments, words):
    with pytest.raises(UserError, match=words):
        TensorImages(*arguments)


def test_subset_and_subset_of_subset():
    images = TensorImages(BYTES, LABELS, NAMES)
    part = Subset(images, [5, 0, 3])
    assert same(part, BYTES[[5, 0, 3]])
    assert list(part.keys) == ["5", "0", "3"]
    assert part.labels.tolist() == [2, 0, 0]
    assert list(part.class_names) == NAMES
    nested = Subset(part, torch.tensor([2, 0]))
    assert nested.image_set is images
    assert same(nested, BYTES[[3, 5]])
    assert list(nested.keys) == ["3", "5"]
    assert len(Subset(images, [])) == 0
    with pytest.raises(UserError, match=r"indices must lie in 0\.\.5"):
        Subset(images, [6])


def test_concatenation():
    first, second = TensorImages(BYTES[:2], LABELS[:2], NAMES), TensorImages(BYTES[2:], LABELS[2:], NAMES)
    both = Concatenation(first, second)
    assert same(both, BYTES)
    assert torch.equal(both[-1], BYTES[-1])
    assert both.labels is both.class_names is both.masks is None
    assert list(both.keys) == ["0", "1", "0", "1", "2", "3"]
    with pytest.raises(IndexError, match="image 6 of 6"):
        both[6]


def test_resident_returns_or_gives_up_cheaply():
    images = TensorImages(BYTES)
    assert resident(images) is BYTES
    assert torch.equal(resident(Subset(images, [4, 1])), BYTES[[4, 1]])
    assert resident(Subset(images, range(6))) is BYTES
    for indices in ([*range(5)], [1, 0, *range(2, 6)], [*range(6), 0]):
        assert torch.equal(resident(Subset(images, indices)), BYTES[indices])
    assert torch.equal(resident(Concatenation(images, Subset(images, [0]))), torch.cat([BYTES, BYTES[:1]]))
    assert resident(images, limit_bytes=BYTES.numel()) is BYTES
    assert resident(images, limit_bytes=BYTES.numel() - 1) is None
    assert resident(images, largest_side=4) is None
    assert resident(TensorImages(BYTES[:0])) is None

    listed = Listed(list(BYTES))
    assert torch.equal(resident(DatasetImages(listed, 3)), BYTES)
    large = Listed([torch.zeros(3, 200, 10, dtype=torch.uint8)] * 50)
    assert resident(DatasetImages(large, 3)) is None
    assert large.reads == 1
    street = torch.randint(0, 256, (2, 3, 180, 256), dtype=torch.uint8)
    assert torch.equal(resident(DatasetImages(Listed(list(street)), 3), largest_side=256), street)
    mixed = Listed([BYTES[0], BYTES[1], BYTES[2][:, :2], *BYTES])
    assert resident(DatasetImages(mixed, 3)) is None
    assert mixed.reads == 4
    shapes = Concatenation(images, TensorImages(BYTES[:, :, :2]))
    assert resident(shapes) is None


def test_the_side_of_views_is_that_of_square_images():
    def square(side, count=4):
        return TensorImages(torch.zeros(count, 3, side, side, dtype=torch.uint8))

    read = DatasetImages(Listed(list(square(32).images)), 3)
    assert natural_side(square(128), None) == 128
    assert natural_side(Subset(square(32), [1, 3]), None) == 32
    assert natural_side(Concatenation(square(32), Subset(square(32), [0])), None) == 32
    assert natural_side(read, square(32).images) == 32
    for others in (square(129), TensorImages(BYTES), Concatenation(square(32), square(8)), read):
        assert natural_side(others, None) == 224
    assert natural_side(TensorImages(BYTES), BYTES) == 224


def test_sets_survive_pickling_and_workers():
    images = TensorImages(BYTES, LABELS, NAMES)
    listed = DatasetImages(Listed([(image, 0) for image in BYTES]), 3)
    for image_set in (images, Subset(images, [2, 3]), Concatenation(images, images), listed):
        copy = pickle.loads(pickle.dumps(image_set))
        assert same(copy, image_set)
        assert list(copy.keys) == list(image_set.keys)
        assert copy.labels is image_set.labels is None or torch.equal(copy.labels, image_set.labels)
    loaded = torch.cat(list(DataLoader(Subset(images, [3, 1, 2]), batch_size=2, num_workers=1)))
    assert torch.equal(loaded, BYTES[[3, 1, 2]])


def test_a_workers_error_is_still_one_line():
    loader = DataLoader(Broken(BYTES), batch_size=2, num_workers=1)
    with pytest.raises(UnreadableImage) as caught:
        list(loader)
    assert str(caught.value).startswith("cannot read image '1': not an image")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threads", [None, 1])
def test_skipping_keeps_what_can_be_read(threads):
    readable, skipped = skip_unreadable(Broken(BYTES, LABELS, NAMES), threads)
    assert skipped == ["1", "3"]
    assert list(readable.keys) == ["0", "2", "4", "5"]
    assert same(readable, BYTES[[0, 2, 4, 5]])
    assert readable.labels.tolist() == [0, 2, 1, 2]
    whole = TensorImages(BYTES)
    assert skip_unreadable(whole, threads) == (whole, [])


def test_skipping_everything_is_an_error_and_other_errors_pass():
    with pytest.raises(UserError, match="none of the 1 images can be read, the first being '1'"):
        skip_unreadable(Subset(Broken(BYTES), [1]))
    with pytest.raises(UserError, match="drop normalisation"):
        skip_unreadable(DatasetImages(Listed([BYTES[0], BYTES[1] * 1.0]), 3))


def test_a_source_skips_in_train_and_unlabeled_but_never_in_test():
    broken = Broken(BYTES, keys=list("abcdef"))
    source = without_unreadable(Source("x", broken, broken, broken))
    assert source.skipped == ("b", "d", "b", "d")
    assert (len(source.train), len(source.unlabeled), len(source.test)) == (4, 4, 6)
    with pytest.raises(UnreadableImage):
        source.test[1]


def test_pretraining_is_train_then_unlabeled():
    first, second = TensorImages(BYTES[:2], LABELS[:2]), TensorImages(BYTES[2:])
    assert Source("x", first).pretraining is first
    both = Source("x", first, None, second).pretraining
    assert same(both, BYTES)
    assert both.labels is None
