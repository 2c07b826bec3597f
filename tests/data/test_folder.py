"""Every folder layout, on small files written by PIL."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from byol.data.folder import open_folder
from byol.data.source import open_source
from byol.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Write images, each of one colour that numbers it, and return their folder."""

    def write(*names):
        for number, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 3), (number, number, number)).save(path, "PNG")
        return tmp_path

    return write


def numbers(image_set):
    return [int(image_set[index].float().mean()) for index in range(len(image_set))]


def test_train_and_test_with_classes(folder):
    root = folder(
        "train/dog/1.png", "train/cat/2.png", "train/cat/1.png", "test/dog/9.png", "test/cat/deep/3.png"
    )
    source = open_folder(root)
    assert list(source.train.keys) == ["train/cat/1.png", "train/cat/2.png", "train/dog/1.png"]
    assert numbers(source.train) == [2, 1, 0]
    assert source.train.labels.tolist() == [0, 0, 1]
    assert list(source.train.class_names) == list(source.test.class_names) == ["cat", "dog"]
    assert list(source.test.keys) == ["test/cat/deep/3.png", "test/dog/9.png"]
    assert source.test.labels.tolist() == [0, 1]
    assert source.train.labels.dtype == torch.int64
    assert source.train[0].shape == (3, 3, 4)
    assert source.unlabeled is None
    assert (source.channels, source.skipped) == (3, ())


def test_what_stands_beside_the_splits_is_ignored(folder):
    root = folder("train/a/1.png", "train/b/1.png", "val/c/1.png", "masks/x.png", "preview.png")
    source = open_folder(root)
    assert list(source.train.keys) == ["train/a/1.png", "train/b/1.png"]
    assert source.test is None


def test_images_that_nobody_sorted_are_pretrained_on_too(folder):
    root = folder("train/a/1.png", "train/b/1.png", "unlabeled/x/2.png", "unlabeled/1.png")
    source = open_folder(root)
    assert list(source.unlabeled.keys) == ["unlabeled/1.png", "unlabeled/x/2.png"]
    assert source.unlabeled.labels is None and source.unlabeled[0].shape == (3, 3, 4)
    assert list(source.train.keys) == ["train/a/1.png", "train/b/1.png"]
    assert len(source.pretraining) == 4
    (root / "unlabeled" / "1.png").write_bytes(b"broken")
    left = open_source(root, on_error="skip")
    assert list(left.unlabeled.keys) == ["unlabeled/x/2.png"] and left.skipped == ("unlabeled/1.png",)


def test_classes_without_splits(folder):
    source = open_folder(folder("b/1.png", "a/deep/er/1.png", "c/1.png"))
    assert source.train.labels.tolist() == [0, 1, 2]
    assert list(source.train.class_names) == ["a", "b", "c"]
    assert source.test is None


@pytest.mark.parametrize(
    "names",
    [
        ("1.png", "2.png"),
        ("only/1.png", "only/2.png"),
        ("only/a/1.png", "only/b/2.png"),
        ("a/1.png", "b/1.png", "loose.png"),
        ("train/1.png", "train/2.png"),
        ("train/only/1.png", "train/only/2.png"),
    ],
)
def test_unlabelled(folder, names):
    source = open_folder(folder(*names))
    assert list(source.train.keys) == sorted(names)
    assert source.train.labels is None
    assert source.train.class_names is None
    assert source.test is None


def test_unlabelled_splits(folder):
    source = open_folder(folder("train/1.png", "train/2.png", "test/3.png"))
    assert list(source.train.keys) == ["train/1.png", "train/2.png"]
    assert list(source.test.keys) == ["test/3.png"]
    assert source.test.labels is None


def test_train_may_be_a_class_of_vehicles(folder):
    source = open_folder(folder("car/1.png", "plane/1.png", "train/1.png"))
    assert list(source.train.class_names) == ["car", "plane", "train"]
    assert len(source.train) == 3


def test_suffixes_in_any_case_and_hidden_files(folder):
    names = ["a.JPG", "b.jpeg", "c.Png", "d.webp", "e.bmp", "f.tif", "g.TIFF"]
    root = folder(*names, ".hidden.png", "._a.png", ".cache/x.png", "notes.txt", "x.gif")
    assert list(open_folder(root).train.keys) == names


def test_links_are_followed_but_not_in_circles(folder, tmp_path_factory):
    root = folder("a/1.png", "b/1.png")
    outside = tmp_path_factory.mktemp("outside")
    Image.new("RGB", (2, 2)).save(outside / "z.png")
    (outside / "home").symlink_to(root)
    (root / "c").symlink_to(outside)
    assert list(open_folder(root).train.keys) == ["a/1.png", "b/1.png", "c/z.png"]


def test_one_channel(folder):
    assert open_folder(folder("1.png"), channels=1).train[0].shape == (1, 3, 4)
    with pytest.raises(UserError, match="1 or 3 channels, not 2"):
        open_folder(folder("1.png"), channels=2)


def test_sizes_may_differ_and_the_set_can_be_pickled(folder):
    root = folder("a/1.png", "b/2.png")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 2, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "a/1.png")
    copy = pickle.loads(pickle.dumps(open_folder(root).train))
    assert np.array_equal(copy[0].permute(1, 2, 0).numpy(), pixels)
    assert copy[1].shape == (3, 3, 4)
    assert copy.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), r"holds no images \(jpg jpeg png webp bmp tif tiff\)"),
        (
            ("train/a/1.png", "train/b/1.png", "test/a/1.png"),
            r"differ \(only in train/: b; only in test/: none\)",
        ),
        (
            ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"),
            r"class folders of train/ and test/ .* differ \(only in train/: b; only in test/: c\)",
        ),
        (("train/a/1.png", "train/b/1.png", "test/1.png"), r"images lie directly in '.*test': put each"),
        (("test/a/1.png", "test/b/1.png"), r"holds test but no train/"),
        (
            ("Train/a/1.png", "Test/a/1.png"),
            r"holds Test, Train but no train/: name the training images' folder train",
        ),
    ],
)
def test_layouts_that_are_refused(folder, names, words):
    with pytest.raises(UserError, match=words):
        open_folder(folder(*names))


def test_an_empty_test_folder_is_refused(folder):
    root = folder("train/a/1.png", "train/b/1.png")
    (root / "test").mkdir()
    with pytest.raises(UserError, match=r"test' holds no images: fill it or remove it"):
        open_folder(root)


def test_missing_folders_and_files(tmp_path):
    with pytest.raises(UserError, match=r"folder '.*nowhere' does not exist"):
        open_folder(tmp_path / "nowhere")
    (tmp_path / "table.parquet").touch()
    with pytest.raises(
        UserError, match=r"is a file, not a folder of images; for Parquet use hf:.*table\.parquet"
    ):
        open_folder(tmp_path / "table.parquet")


def test_kinds_that_are_not_read_are_told(folder):
    root = folder("a.png")
    for name in ("b.HEIC", "c.gif", "d.gif", ".e.gif", "f.txt"):
        (root / name).touch()
    source = open_folder(root)
    assert (list(source.train.keys), source.passed_over) == (["a.png"], ("b.HEIC", "c.gif", "d.gif"))
    (root / "a.png").unlink()
    with pytest.raises(UserError, match=r"no images .*, but 3 of kinds that are not read \(.gif .heic\)"):
        open_folder(root)


def test_unreadable_images_stop_or_are_skipped(folder):
    root = folder("train/a/1.png", "train/a/2.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")
    for name in ("train/a/2.png", "test/b/1.png"):
        (root / name).write_bytes((root / name).read_bytes()[:40])
    stopping = open_folder(root)
    assert stopping.skipped == ()
    with pytest.raises(UserError, match=r"cannot read image 'train/a/2\.png': .* --on-error skip"):
        stopping.train[1]
    skipping = open_source(root, on_error="skip")
    assert skipping.skipped == ("train/a/2.png",)
    assert list(skipping.train.keys) == ["train/a/1.png", "train/b/1.png"]
    assert skipping.train.labels.tolist() == [0, 1]
    assert len(skipping.test) == 2
    with pytest.raises(UserError, match=r"test/b/1\.png"):
        skipping.test[1]
