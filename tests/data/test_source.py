"""What `--data` may say, and what it means."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from byol.data.source import NAMES, open_source, resolved_spec
from byol.errors import UserError

BYTES = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_as_designed():
    assert NAMES[:5] == ("digits", "cifar10", "cifar100", "stl10", "fashion_mnist")
    assert [name.split("/")[1] for name in NAMES[5:]] == [
        "byclass",
        "bymerge",
        "balanced",
        "letters",
        "digits",
        "mnist",
    ]


def test_a_name(here):
    assert len(open_source("digits").train) == 1297
    assert open_source("digits", channels=3).train[0].shape == (3, 8, 8)
    with pytest.raises(UserError, match="1 or 3 channels, not 2"):
        open_source("digits", channels=2)


@pytest.mark.parametrize("spec", ["folder:photos", "photos", "./photos", "photos/"])
def test_a_folder(here, spec):
    source = open_source(spec)
    assert list(source.train.keys) == ["a/1.png", "b/2.png"]
    assert source.train[0].shape == (3, 3, 4)
    assert open_source(spec, channels=1).train[0].shape == (1, 3, 4)
    assert open_source(Path("photos")).train.labels.tolist() == [0, 1]


def test_a_name_wins_over_a_path(here):
    (here / "digits").mkdir()
    assert open_source("digits").name == "digits"
    assert resolved_spec("digits") == "digits"
    with pytest.raises(UserError, match="holds no images"):
        open_source("folder:digits")


def test_hf(here):
    pytest.importorskip("datasets").disable_progress_bars()
    source = open_source("hf:photos", channels=1, data_dir=str(here / "downloads"))
    assert source.train[0].shape == (1, 3, 4)
    assert (here / "downloads" / "huggingface").is_dir()


def test_a_tensor():
    source = open_source(BYTES)
    assert source.train.images is BYTES
    assert (source.name, source.channels, source.test) == ("tensor", 3, None)
    assert open_source(BYTES, channels=1).train[0].shape == (1, 5, 5)
    five = torch.zeros(2, 5, 3, 3, dtype=torch.uint8)
    assert open_source(five).channels == 5
    with pytest.raises(UserError, match="5 channels cannot become 3"):
        open_source(five, channels=3)
    with pytest.raises(UserError, match=r"uint8 tensor \[N,C,H,W\]"):
        open_source(BYTES / 255)
    with pytest.raises(UserError, match="holds no images"):
        open_source(BYTES[:0])


class Pictures(Dataset):
    def __init__(self, *images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if isinstance(self.images[index], str):
            raise OSError(self.images[index])
        return self.images[index]


def test_a_dataset():
    source = open_source(TensorDataset(BYTES, torch.tensor([0, 1, 1, 0])))
    assert (source.name, source.channels) == ("TensorDataset", 3)
    assert source.train.labels.tolist() == [0, 1, 1, 0]
    assert open_source(Pictures(Image.new("L", (3, 3)))).channels == 1
    assert open_source(Pictures(Image.new("RGBA", (3, 3)))).channels == 3
    assert open_source(Pictures(torch.rand(7, 2, 2))).train[0].shape == (7, 2, 2)
    assert open_source(Pictures(BYTES[0]), channels=1).train[0].shape == (1, 5, 5)


def test_skipping():
    dataset = Pictures(BYTES[0], "image file is truncated", BYTES[1])
    stopping = open_source(dataset)
    with pytest.raises(UserError, match="cannot read image '1': image file is truncated"):
        stopping.train[1]
    skipping = open_source(dataset, on_error="skip")
    assert skipping.skipped == ("1",)
    assert torch.equal(skipping.train[1], BYTES[1])
    with pytest.raises(UserError, match=r"unknown --on-error 'skp'\. Did you mean 'skip'"):
        open_source(dataset, on_error="skp")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            "cifar01",
            r"unknown data 'cifar01', and no such path .*Did you mean 'cifar1.*Known: digits, .*hf:",
        ),
        ("foler:photos", r"Did you mean 'folder:photos'\?"),
        ("./fotos", r"unknown data './fotos', and no such path exists\."),
        ("", r"unknown data ''"),
        ("emnist", r"EMNIST has six sets, not 'emnist'\..* emnist/byclass, .*emnist/mnist\."),
        ("emnist/leters", r"Did you mean 'emnist/letters'\?"),
        ("folder:", r"--data folder: names nothing; write folder:PATH"),
        ("hf:", r"--data hf: names nothing"),
        ("folder:fotos", r"folder 'fotos' does not exist"),
    ],
)
def test_unknown_data(here, spec, words):
    with pytest.raises(UserError, match=words) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


def test_resolved_specs(here):
    photos = here / "photos"
    for spec in ("folder:photos", "photos", "./photos", f"folder:{photos}"):
        assert resolved_spec(spec) == f"folder:{photos}"
    assert resolved_spec("hf:photos") == f"hf:{photos}"
    assert resolved_spec("folder:missing") == f"folder:{here / 'missing'}"
    for spec in ("emnist/letters", "hf:someone/pictures", "nonsense", "folder:", "hf:"):
        assert resolved_spec(spec) == spec


def test_resolved_specs_open_the_same_from_elsewhere(here, tmp_path_factory, monkeypatch):
    specs = [resolved_spec("folder:photos"), resolved_spec("photos")]
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert all(len(open_source(spec).train) == 2 for spec in specs)


def test_opening_loads_no_library_that_is_not_needed():
    code = "import sys, byol.data.source; print({'sklearn', 'datasets', 'torchvision'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"
