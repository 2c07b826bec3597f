"""Parquet, Arrow and image folders through `datasets`, offline; the real CIFAR-10 where it lies nearby."""

import io
import pickle
import socket
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image
from PIL import Image as PILImage

from byol.data.hf import open_hf
from byol.data.images import resident
from byol.data.source import open_source
from byol.errors import UserError

CIFAR10 = Path(__file__).parents[2] / ".." / "shared" / "data" / "cifar10"
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
FEATURES = Features({"image": Image(), "label": ClassLabel(names=["ant", "bee"])})


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_arguments, **_options):
        raise ConnectionError("a test must not use the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    datasets.disable_progress_bars()


def png(pixels):
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def table(numbers, labels=None, features=FEATURES):
    columns = {"image": [{"bytes": png(IMAGES[n]), "path": f"{n}.png"} for n in numbers]}
    columns["label"] = labels or [n % 2 for n in numbers]
    return datasets.Dataset.from_dict(columns, features=features)


def write(path, numbers, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    table(numbers, **options).to_parquet(str(path))


def check(image_set, numbers):
    assert len(image_set) == len(numbers)
    for index, number in enumerate(numbers):
        assert np.array_equal(image_set[index].permute(1, 2, 0).numpy(), IMAGES[number])


@pytest.fixture
def opened(tmp_path):
    def open_at(path, **options):
        return open_hf(str(path), data_dir=str(tmp_path / "downloads"), **options)

    return open_at


def test_a_folder_of_parquet_files(tmp_path, opened):
    data = tmp_path / "data"
    write(data / "train-00000-of-00002.parquet", [0, 1])
    write(data / "train-00001-of-00002.parquet", [2])
    write(data / "test-00000-of-00001.parquet", [3, 4])
    write(data / "validation-00000-of-00001.parquet", [5])
    write(data / "unlabeled-00000-of-00001.parquet", [5, 4])
    source = opened(data)
    check(source.train, [0, 1, 2])
    check(source.test, [3, 4])
    check(source.unlabeled, [5, 4])
    assert source.train.labels.tolist() == [0, 1, 0]
    assert source.test.labels.tolist() == [1, 0]
    assert source.unlabeled.labels is None
    assert list(source.train.class_names) == list(source.test.class_names) == ["ant", "bee"]
    assert list(source.train.keys) == ["train/0", "train/1", "train/2"]
    assert len(source.pretraining) == 5
    assert source.train[0].shape == (3, 4, 5)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "downloads"}
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["huggingface"]


def test_splits_may_be_folders_and_hidden_files_are_left_alone(tmp_path, opened):
    write(tmp_path / "d/train/part-0.parquet", [0, 1])
    write(tmp_path / "d/test/part-0.parquet", [2])
    write(tmp_path / "d/.old/part-0.parquet", [3])
    source = opened(tmp_path / "d")
    check(source.train, [0, 1])
    check(source.test, [2])


def test_a_single_file_is_train_whatever_its_name(tmp_path, opened):
    write(tmp_path / "test-small.parquet", [2, 3])
    source = opened(tmp_path / "test-small.parquet")
    check(source.train, [2, 3])
    assert source.test is None


def test_one_channel(tmp_path, opened):
    write(tmp_path / "a.parquet", [0])
    expected = np.asarray(PILImage.fromarray(IMAGES[0]).convert("L"))
    assert np.array_equal(opened(tmp_path / "a.parquet", channels=1).train[0][0].numpy(), expected)
    with pytest.raises(UserError, match="1 or 3 channels, not 4"):
        opened(tmp_path / "a.parquet", channels=4)


def test_saved_to_disk_both_ways(tmp_path, opened):
    datasets.DatasetDict(train=table([0, 1]), test=table([2])).save_to_disk(str(tmp_path / "both"))
    source = opened(tmp_path / "both")
    check(source.train, [0, 1])
    check(source.test, [2])
    table([3]).save_to_disk(str(tmp_path / "one"))
    check(opened(tmp_path / "one").train, [3])


def test_loose_arrow_files(tmp_path, opened):
    table([0, 1]).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "loose").mkdir()
    next((tmp_path / "saved").glob("*.arrow")).rename(tmp_path / "loose/train.arrow")
    check(opened(tmp_path / "loose").train, [0, 1])


def test_an_image_folder(tmp_path, opened):
    for split, number in (("train", 0), ("train", 1), ("test", 2), ("test", 3)):
        path = tmp_path / "d" / split / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(IMAGES[number]))
    source = opened(tmp_path / "d")
    check(source.train, [0, 1])
    check(source.test, [2, 3])
    assert source.train.labels.tolist() == [0, 1]
    assert list(source.train.class_names) == ["a", "b"]


def test_a_plain_struct_with_numbered_labels(tmp_path, opened):
    encoded = [{"bytes": png(IMAGES[n]), "path": None} for n in range(3)]
    for split, labels in (("train", [0, 4, 1]), ("test", [2, 0, 0])):
        pq.write_table(pa.table({"picture": encoded, "label": labels}), tmp_path / f"{split}.parquet")
    source = opened(tmp_path)
    check(source.train, [0, 1, 2])
    assert source.train.labels.tolist() == [0, 4, 1]
    assert list(source.train.class_names) == list(source.test.class_names) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("labels", [[0, -1], [None, 1]])
def test_withheld_labels_are_no_labels(tmp_path, opened, labels):
    write(tmp_path / "train.parquet", [0, 1])
    write(tmp_path / "test.parquet", [2, 3], labels=labels)
    source = opened(tmp_path)
    assert source.train.labels.tolist() == [0, 1]
    assert source.test.labels is None
    assert source.test.class_names is None


def test_unreadable_rows_stop_or_are_skipped(tmp_path, opened):
    rows = [
        {"bytes": png(IMAGES[0]), "path": None},
        {"bytes": b"broken", "path": None},
        None,
        {"bytes": None, "path": None},
    ]
    pq.write_table(pa.table({"image": rows, "label": [0, 1, 1, 1]}), tmp_path / "train.parquet")
    source = opened(tmp_path)
    with pytest.raises(UserError, match=r"cannot read image 'train/1': not an image"):
        source.train[1]
    for empty in (2, 3):
        with pytest.raises(UserError, match=rf"cannot read image 'train/{empty}': the row is empty"):
            source.train[empty]
    skipping = open_source(f"hf:{tmp_path}", data_dir=str(tmp_path / "downloads"), on_error="skip")
    assert skipping.skipped == ("train/1", "train/2", "train/3")
    check(skipping.train, [0])


def test_the_set_can_be_pickled(tmp_path, opened):
    write(tmp_path / "a.parquet", [0, 1, 2])
    data = pickle.dumps(opened(tmp_path / "a.parquet").train)
    assert len(data) < 10_000
    check(pickle.loads(data), [0, 1, 2])


def test_what_cannot_be_opened_is_said_in_one_line(tmp_path, opened):
    (tmp_path / "a.csv").touch()
    with pytest.raises(UserError, match=r"a\.csv is a file but not Parquet"):
        opened(tmp_path / "a.csv")
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"^cannot read hf:.*bad\.parquet: .+") as caught:
        opened(tmp_path / "bad.parquet")
    assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"cannot read hf:.*empty: "):
        opened(tmp_path / "empty")
    write(tmp_path / "only/test-0.parquet", [0])
    with pytest.raises(UserError, match=r"has no images in a train split, only test"):
        opened(tmp_path / "only")


def test_a_hub_name_keeps_its_files_in_the_data_folder(tmp_path, opened, monkeypatch):
    from huggingface_hub import constants

    before, seen = constants.HF_HUB_CACHE, {}

    def load(name, cache_dir):
        seen.update(name=name, tables=cache_dir, files=constants.HF_HUB_CACHE)
        return datasets.DatasetDict(train=table([0]))

    monkeypatch.setattr(datasets, "load_dataset", load)
    check(opened("someone/pictures").train, [0])
    downloads = tmp_path / "downloads" / "huggingface"
    assert seen == {"name": "someone/pictures", "tables": str(downloads), "files": str(downloads / "hub")}
    assert before == constants.HF_HUB_CACHE

    def fail(name, cache_dir):
        raise ConnectionError("could not\nreach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        UserError,
        match=r"hf:a/b, which is no local path; as a Hub name it needs the network: could not reach",
    ):
        opened("a/b")
    assert before == constants.HF_HUB_CACHE


@pytest.mark.skipif(not CIFAR10.exists(), reason="CIFAR-10 as Parquet is not at ../shared/data/cifar10")
def test_the_real_cifar10(opened):
    source = opened(CIFAR10)
    assert (len(source.train), len(source.test)) == (50000, 10000)
    assert source.test.labels.bincount().tolist() == [1000] * 10
    assert source.train.labels.bincount().tolist() == [5000] * 10
    assert list(source.train.class_names)[:3] == ["airplane", "automobile", "bird"]
    row = pq.read_table(CIFAR10 / "test-00000-of-00001.parquet").slice(123, 1).to_pylist()[0]
    expected = np.asarray(PILImage.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
    assert np.array_equal(source.test[123].permute(1, 2, 0).numpy(), expected)
    assert int(source.test.labels[123]) == row["label"]
    assert resident(source.train, limit_bytes=1000) is None
