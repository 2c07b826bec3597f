"""Any torch Dataset as an image set: what it may yield, and where its labels come from."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset
from torch.utils.data import Subset as TorchSubset

from byol.data.dataset_images import DatasetImages
from byol.data.mock_dataset import MockDataset
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
        sample = self.samples[index]
        if isinstance(sample, Exception):
            raise sample
        return sample


def test_dataset_images_reads_bytes_floats_and_pil():
    pil = Image.fromarray(BYTES[0].permute(1, 2, 0).numpy())
    wrapped = DatasetImages(Listed([pil, BYTES[1], BYTES[2] / 255, (BYTES[3], "no label")]), 3)
    assert all(torch.equal(wrapped[index], BYTES[index]) for index in range(4))
    assert wrapped.labels is None
    assert wrapped.class_names is None
    grey = DatasetImages(Listed([pil, BYTES[0]]), 1)
    assert torch.equal(grey[0], grey[1])
    assert DatasetImages(Listed([BYTES[0, :1]]), 3)[0].shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (BYTES[0] / 127 - 1, "image 0 of the dataset is a float32 tensor .* drop normalisation"),
        (BYTES[0].float() * float("nan"), "drop normalisation"),
        (BYTES[0].int(), "int32"),
        ({"image": BYTES[0]}, "image 0 of the dataset is a dict; it must be a PIL image or a tensor"),
        (BYTES[0, 0], "uint8 tensor"),
        (FileNotFoundError("gone.png"), "cannot read image '0': no such file"),
    ],
)
def test_dataset_images_refuses(sample, words):
    with pytest.raises(UserError, match=words):
        DatasetImages(Listed([sample]), 3)[0]


def test_dataset_images_needs_a_length_and_images():
    with pytest.raises(UserError, match="no length"):
        DatasetImages(iter([]), 3)
    with pytest.raises(UserError, match="holds no images"):
        DatasetImages(Listed([]), 3)


def test_dataset_labels_are_read_where_the_dataset_does_not_state_them():
    listed = Listed([(image, label) for image, label in zip(BYTES, LABELS, strict=True)])
    wrapped = DatasetImages(listed, 3)
    assert wrapped.labels.tolist() == LABELS.tolist()
    assert list(wrapped.class_names) == ["0", "1", "2"]
    assert DatasetImages(TensorDataset(BYTES, LABELS), 3).labels.tolist() == LABELS.tolist()


def test_dataset_labels_are_believed_only_where_they_agree():
    listed = Listed([(image, int(label)) for image, label in zip(BYTES, LABELS, strict=True)])
    listed.targets, listed.classes = LABELS.tolist(), NAMES
    wrapped = DatasetImages(listed, 3)
    assert wrapped.labels.tolist() == LABELS.tolist()
    assert list(wrapped.class_names) == NAMES
    assert listed.reads == 2
    part = DatasetImages(TorchSubset(listed, [4, 2]), 3)
    assert part.labels.tolist() == [1, 2]
    assert list(part.class_names) == NAMES
    listed.targets = [2, 2, 2, 2, 2, 2]  # a target_transform, say
    assert DatasetImages(listed, 3).labels.tolist() == LABELS.tolist()


def test_dataset_labels_below_zero_mean_unlabelled():
    assert DatasetImages(Listed([(BYTES[0], 1), (BYTES[1], -1)]), 3).labels is None


def test_numpy_integer_labels_count_as_labels():
    assert DatasetImages(Listed([(BYTES[0], np.int64(1)), (BYTES[1], np.uint8(0))]), 3).labels.tolist() == [
        1,
        0,
    ]


def test_mock_images_are_noise_that_an_index_always_gives() -> None:
    noise = MockDataset(12, 5)
    first = [noise[index] for index in range(5)]
    assert all(torch.equal(noise[index], image) for index, image in enumerate(first))
    assert len(noise) == 5 and len({tuple(image.flatten().tolist()) for image in first}) == 5
    assert all(image.shape == (3, 12, 12) and 0 <= image.min() < image.max() <= 1 for image in first)
    for index in (-1, 5):
        with pytest.raises(IndexError, match=f"image {index} of 5"):
            noise[index]
