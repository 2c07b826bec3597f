import json
from pathlib import Path

import torch

from byol.data.images import Subset, TensorImages
from byol.data.source import Source
from byol.data.splits import draw_labels
from byol.evaluation.label_draws import drawn_labels
from byol.evaluation.task import Task, divide


def named(name: str, digits: Source) -> Task:
    return divide(Source(name, digits.train, digits.test), 0.1)


def test_a_draw_is_written_as_it_is_used_and_stays_so(digits: Source, tmp_path: Path) -> None:
    task = named("digits", digits)
    drawn = drawn_labels(task, "2%", 3, 7, tmp_path / "splits")
    assert torch.equal(drawn, draw_labels(task.labels, "2%", 3, 7))
    (file,) = (tmp_path / "splits").iterdir()
    assert file.name == "digits-2%-draw3-seed7.json"
    written, text = json.loads(file.read_text()), file.read_text()
    assert written["indices"] == drawn.tolist()
    assert written["keys"] == list(Subset(task.train, drawn).keys)
    assert written["classes"] == task.labels[drawn].tolist()
    assert {name: written[name] for name in ("data", "labels", "draw", "seed", "train_images")} == {
        "data": "digits",
        "labels": "2%",
        "draw": 3,
        "seed": 7,
        "train_images": 1297,
    }
    drawn_labels(task, "2%", 3, 7, tmp_path / "splits")
    assert file.read_text() == text


def test_each_draw_amount_seed_and_data_has_its_own_file(digits: Source, tmp_path: Path) -> None:
    for name in ("digits", "folder:/a/b-c", "folder:/a-b/c", "folder:/" + 300 * "x"):
        for amount, draw, seed in ((1, 0, 0), ("1%", 0, 0), (1, 1, 0), (1, 0, 1)):
            drawn_labels(named(name, digits), amount, draw, seed, tmp_path)
    assert len(list(tmp_path.iterdir())) == 16


def test_keys_are_those_of_the_images(tmp_path: Path) -> None:
    images = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    keys = [f"picture{index}" for index in range(20)]
    train = TensorImages(images, torch.arange(20) % 2, keys=keys)
    task = divide(Source("mine", train, train), 0.1)
    drawn = drawn_labels(task, 2, 0, 0, tmp_path)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["keys"] == [keys[index] for index in drawn.tolist()]


def test_without_a_folder_nothing_is_written(digits: Source) -> None:
    task = named("digits", digits)
    assert torch.equal(drawn_labels(task, 1, 0, 0, None), draw_labels(task.labels, 1, 0, 0))
