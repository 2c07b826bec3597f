"""Named sets on small files written here in each set's own binary format."""

import gzip
import os
import string

import numpy as np
import pytest
import torch
import torchvision.datasets as published
from PIL import Image
from sklearn.datasets import load_digits

from byol.data.digits import open_digits
from byol.data.torchvision_sets import EMNIST_SPLITS, open_torchvision
from byol.errors import UserError
from tests.named_sets import (
    RNG,
    idx,
    md5,
    random_images,
    write_cifar,
    write_cifar10,
    write_emnist,
    write_stl10,
)


@pytest.fixture
def trusting(monkeypatch):
    """Take any CIFAR or STL-10 file that exists for the published one."""
    for module in ("cifar", "stl10"):
        target = f"torchvision.datasets.{module}.check_integrity"
        monkeypatch.setattr(target, lambda path, md5=None: os.path.isfile(path))  # noqa: PTH113 - torchvision's call
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", _no_network)


def _no_network(*_arguments, **_options):
    raise AssertionError("a test must not download")


def test_cifar10(tmp_path, trusting):
    written = write_cifar10(tmp_path)
    names = [f"class {number}" for number in range(10)]
    batches = [f"data_batch_{number}" for number in range(1, 6)]
    source = open_torchvision("cifar10", None, str(tmp_path))
    images = np.concatenate([written[batch][0] for batch in batches])
    labels = [label for batch in batches for label in written[batch][1]]
    assert np.array_equal(source.train.images.numpy(), images)
    assert source.train.labels.tolist() == labels
    assert np.array_equal(source.test.images.numpy(), written["test_batch"][0])
    assert source.test.labels.tolist() == written["test_batch"][1]
    assert list(source.train.class_names) == names
    assert source.channels == 3
    assert source.train.keys[7] == "train/7"
    assert source.test.keys[0] == "test/0"
    assert source.train.images.is_contiguous()
    grey = open_torchvision("cifar10", 1, str(tmp_path))
    expected = np.asarray(Image.fromarray(images[3].transpose(1, 2, 0)).convert("L"))
    assert grey.channels == 1
    assert np.array_equal(grey.train[3][0].numpy(), expected)
    assert grey.train.labels.tolist() == labels


def test_downloads_in_the_home_folder(tmp_path, trusting, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    written = write_cifar10(tmp_path / "home" / "sets")
    source = open_torchvision("cifar10", None, "~/sets")
    assert np.array_equal(source.test.images.numpy(), written["test_batch"][0])
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_cifar100_has_its_fine_labels(tmp_path, trusting):
    names = [f"fine {number}" for number in range(100)]
    written = write_cifar(
        tmp_path / "cifar-100-python", ["train", "test"], "fine_labels", "meta", {"fine_label_names": names}
    )
    source = open_torchvision("cifar100", None, str(tmp_path))
    for split, image_set in (("train", source.train), ("test", source.test)):
        assert np.array_equal(image_set.images.numpy(), written[split][0])
        assert image_set.labels.tolist() == written[split][1]
        assert list(image_set.class_names) == names


def test_stl10_pretrains_on_train_and_unlabeled(tmp_path, trusting):
    names = list("abcdefghij")
    images = write_stl10(tmp_path, {"train": [1, 10, 3], "test": [2, 2]}, 4, names)  # numbered from 1
    source = open_torchvision("stl10", None, str(tmp_path))
    for split, pixels in images.items():
        assert np.array_equal(getattr(source, split).images.numpy(), pixels)
    assert source.train.labels.tolist() == [0, 9, 2]
    assert source.test.labels.tolist() == [1, 1]
    assert list(source.train.class_names) == names
    assert source.unlabeled.labels is None
    assert len(source.pretraining) == 7
    assert np.array_equal(source.pretraining[4].numpy(), images["unlabeled"][1])
    assert source.pretraining.labels is None
    assert list(source.pretraining.keys)[2:4] == ["train/2", "unlabeled/0"]


def test_fashion_mnist(tmp_path, monkeypatch):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    written, resources = {}, []
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = random_images(5, 28, 1), RNG.integers(0, 10, 5).astype(np.uint8)
        for name, array in (("images-idx3", images[:, 0]), ("labels-idx1", labels)):
            path = raw / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(array)))
            resources.append((path.name, md5(path)))
        written[split] = images, labels
    monkeypatch.setattr(published.FashionMNIST, "resources", resources)
    source = open_torchvision("fashion_mnist", None, str(tmp_path))
    assert source.channels == 1
    for split, image_set in (("train", source.train), ("test", source.test)):
        assert np.array_equal(image_set.images.numpy(), written[split][0])
        assert image_set.labels.tolist() == written[split][1].tolist()
    assert source.train.class_names[9] == "Ankle boot"
    colour = open_torchvision("fashion_mnist", 3, str(tmp_path))
    assert torch.equal(colour.train.images, source.train.images.repeat(1, 3, 1, 1))


def letter_l():
    """An upright L: a stem on the left, a foot at the bottom."""
    image = np.zeros((28, 28), dtype=np.uint8)
    image[4:24, 8:11] = 255
    image[21:24, 8:20] = 200
    return image


# Published in the sets' mapping files: digits, capitals, small letters; merged where both look alike.
EMNIST_CLASSES = {
    "byclass": string.digits + string.ascii_uppercase + string.ascii_lowercase,
    "bymerge": string.digits + string.ascii_uppercase + "abdefghnqrt",
    "balanced": string.digits + string.ascii_uppercase + "abdefghnqrt",
    "letters": string.ascii_lowercase,
    "digits": string.digits,
    "mnist": string.digits,
}


@pytest.mark.parametrize("variant", EMNIST_SPLITS)
def test_emnist_stands_upright_with_labels_from_zero(tmp_path, monkeypatch, variant):
    classes = len(EMNIST_CLASSES[variant])
    first = 1 if variant == "letters" else 0
    labels = [first, first + classes - 1, first + 3]
    images = np.stack([letter_l(), *random_images(2, 28, 1)[:, 0]])
    monkeypatch.setattr(published.EMNIST, "md5", write_emnist(tmp_path, variant, images, labels))
    source = open_torchvision(f"emnist/{variant}", None, str(tmp_path))
    for image_set, written in ((source.train, images), (source.test, 255 - images)):
        assert np.array_equal(image_set.images[:, 0].numpy(), written)
        assert image_set.labels.tolist() == [0, classes - 1, 3]
        assert "".join(image_set.class_names) == EMNIST_CLASSES[variant]
    assert source.channels == 1


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    from urllib.error import URLError

    def fail(*_arguments, **_options):
        raise URLError("Name or service\nnot known")

    for module in ("cifar", "stl10", "mnist"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", fail)
    for name in ("cifar10", "stl10", "fashion_mnist", "emnist/letters"):
        with pytest.raises(
            UserError, match=rf"^cannot download or read {name}: .*connect to the network.*--data-dir"
        ) as caught:
            open_torchvision(name, None, str(tmp_path))
        assert "\n" not in str(caught.value)


def test_a_failure_without_words_is_told_by_its_kind(tmp_path, monkeypatch):
    def fail(*_arguments, **_options):
        raise ConnectionAbortedError

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    with pytest.raises(UserError, match=r"^cannot download or read cifar10: ConnectionAbortedError; connect"):
        open_torchvision("cifar10", None, str(tmp_path))


def test_digits_equal_scikit_learn():
    source = open_digits()
    reference = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    assert (len(source.train), len(source.test), source.channels) == (1297, 500, 1)
    for image_set, part in ((source.train, order[:1297]), (source.test, order[1297:])):
        assert image_set.images.dtype == torch.uint8
        assert image_set.images.shape[1:] == (1, 8, 8)
        exact = reference.images[part] * 255 / 16
        assert np.abs(image_set.images[:, 0].numpy() - exact).max() <= 0.5
        assert image_set.labels.tolist() == reference.target[part].tolist()
        assert list(image_set.keys) == [str(index) for index in part]
    assert source.train.images.max() == 255
    assert list(source.train.class_names) == list("0123456789")
    assert torch.equal(open_digits(3).test.images, source.test.images.expand(-1, 3, -1, -1))
