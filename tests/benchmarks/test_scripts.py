"""Every speed benchmark runs, on less of everything, and records what the tables are made of."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from byol.errors import UserError
from tests.scenes import write_scenes

Run = Callable[[ModuleType], dict[str, Any]]


@pytest.fixture
def run(small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return a function that runs a script quickly and reads its result."""

    def recorded(module: ModuleType) -> dict[str, Any]:
        file = tmp_path / "result.json"
        monkeypatch.setattr(sys, "argv", ["benchmark", "--quick", "--out", str(file)])
        module.main()
        values: dict[str, Any] = json.loads(file.read_text())
        return values

    return recorded


def test_the_picture_of_positive_pairs(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    pairs = script("positives").draw(tmp_path / "positives.jpg")
    assert pairs.shape == (49, 49) and 5 < pairs.sum() < 49
    with Image.open(tmp_path / "positives.jpg") as picture:
        assert picture.size == (1260, 387)


@pytest.mark.slow
def test_views(script: Callable[[str], ModuleType], run: Run) -> None:
    module = script("views")
    module.BATCH = {"small": 16, "imagenet": 2}
    values = run(module)
    for preset in module.BATCH:
        assert set(values[preset]["views_per_second"]) == {"byol", "torchvision"}
        assert values[preset]["byol_over"]["torchvision"] > 0
    assert "torchvision v2" in script("speed_tables").views(values)


def test_views_on_device(script: Callable[[str], ModuleType], run: Run) -> None:
    module = script("views_on_device")
    module.CASES, module.QUEUED = {"small": (32, 32, 8), "imagenet": (40, 32, 4)}, 2
    values = run(module)
    for case in values["cases"].values():
        speed = case["views_per_second"]["not compiled"]
        assert 0 < speed < min(case["at_copy_speed"], case["products_alone"])
        assert case["share_of_floor"] == pytest.approx(
            speed / min(case["at_copy_speed"], case["products_alone"]), abs=1e-3
        )
    page = script("speed_tables").views_on_device({**values, "gpus": []})
    assert "| preset `small` | not compiled |" in page


def test_views_that_cannot_be_compiled_leave_the_others(
    script: Callable[[str], ModuleType], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("views_on_device")
    module.CASES, module.QUEUED = {"small": (32, 32, 8)}, 1
    module.WAYS = {"compiled": True, "not compiled": False}
    working = module.maker

    def maker(preset: str, compiled: bool) -> Any:
        if compiled:
            raise RuntimeError("no compiler")
        return working(preset, compiled)

    monkeypatch.setattr(module, "maker", maker)
    speeds = run(module)["cases"]["small"]["views_per_second"]
    assert speeds["compiled"] is None and speeds["not compiled"] > 0


def test_the_table_of_fast_paths(script: Callable[[str], ModuleType]) -> None:
    runs = [{"knn": 0.9, "logistic": 1.0}, {"knn": 0.92, "logistic": 1.0}]
    page = script("speed_tables").fast_paths({"seeds": [0, 1], "runs": {"plain": runs}})
    assert "| plain | 91.0 +- 1.4 | 100.0 +- 0.0 |" in page


@pytest.mark.slow
def test_step(script: Callable[[str], ModuleType], run: Run) -> None:
    module = script("step")
    module.CASES = {"resnet8_16-32": (8, 32, "fp32")}
    values = run(module)
    assert "| byol |" in script("speed_tables").step(values)
    memory = values["cases"]["resnet8_16-32"]["memory"]
    assert 0.5 * memory["bytes_to_hold"] < memory["bytes_of_the_step"]["byol"]


def test_pixel_memory(script: Callable[[str], ModuleType], run: Run) -> None:
    module = script("pixel_memory")
    module.BATCH, module.WIDTH, module.SIDES = 2, 32, (5,)
    values = run(module)
    assert [case["term"] for case in values["cases"]] == list(module.TERMS)
    for case in values["cases"]:
        # Broadcast maps have at least width x places x places numbers for each image, ours far fewer.
        assert case["bytes"]["broadcast"] > 4 * 2 * 32 * 25**2
        assert case["bytes"]["byol"] < 4 * 2 * 25 * (6 * 32 + 8 * 25)
    assert "| PixPro's loss | 5 x 5 | broadcast |" in script("speed_tables").pixel_memory(values)
    dead = values["cases"][0]
    for found in (dead["bytes"], dead["seconds"], dead["fastest_and_slowest"]):
        found["broadcast"] = None
    dead["times_less_memory"] = dead["byol_takes"]["broadcast"] = None
    module.tell(dead)
    assert "| PixPro's loss | 5 x 5 | broadcast |  |  | died |" in script("speed_tables").pixel_memory(values)


@pytest.mark.slow
def test_evaluation(script: Callable[[str], ModuleType], run: Run) -> None:
    module = script("evaluation")
    module.QUICK = (500, 50)
    values = run(module)
    assert values["knn"]["predictions_that_differ"]["scikit-learn"] <= 1
    assert 0 < values["knn"]["share_of_matrix_rate"] < 1
    logistic = values["logistic"]
    assert logistic["evaluations"] > 5
    # Two products with every look, of 10 classes and all of 512 axes at most, and two to find the axes.
    looks = logistic["evaluations"] * 4 * 500 * 10 * 500
    assert looks < logistic["operations"] < 1.5 * looks + 6 * 500 * 512 * 512
    assert "logistic regression" in script("speed_tables").evaluation(values)


@pytest.mark.slow
def test_epoch(script: Callable[[str], ModuleType], run: Run) -> None:
    module = script("epoch")
    module.CIFAR10 = Path("nothing")
    module.CASES = {
        "cifar10": module.Case("resnet8_16", 32, "small", 8 * 32, 16, 64, "fp32"),
        "jpeg": module.Case("resnet8_16", 64, "imagenet", 8 * 8, 4, 64, "fp32"),
    }
    values = run(module)
    for case in values["cases"].values():
        assert 0 < case["images_per_second"]["byol"] < 2 * case["at_most"]  # others may slow that down
        assert 0 <= case["waiting_for_data"]["byol"] < 1
    assert values["cases"]["cifar10"]["data"] == "made-up 32x32 images"
    assert "waiting for data" in script("speed_tables").epoch(values)


@pytest.mark.slow
def test_start_up(script: Callable[[str], ModuleType], run: Run) -> None:
    module = script("start_up")
    for name in ("import byol", "byol --version", "from byol import BYOL"):  # as the others are timed
        del module.OURS[name]
    values = run(module)
    seconds = values["seconds"]
    assert 0 < seconds["byol --help"] < seconds["byol pretrain --recipe digits, first step"]
    assert "`byol --help`" in script("speed_tables").start_up(values)


@pytest.mark.slow
def test_scaling(script: Callable[[str], ModuleType], run: Run) -> None:
    module = script("scaling")
    module.FITTED = [("resnet8_16", 32, 4), ("resnet8_16", 32, 16), ("resnet8_16", 48, 4)]
    module.CHECKED = [("resnet8_16", 48, 8)]
    few, more = ("resnet8_16", 48, 8), ("resnet8_16", 48, 24)
    module.MEMORY = {"fitted": [few, more], "checked": [more], "predicted": [few, more]}
    module.IMAGES, module.LARGE = (1000,), ("resnet8_16", 32)
    longer = module.measured_runs
    module.measured_runs = lambda counts, steps: longer(counts, steps // 5)
    values = run(module)
    assert [row["fitted"] for row in values["steps"]] == [True, True, True, False]
    assert values["memory"]["checked"][0]["bytes"] > 0
    assert "## Where it ends" in script("scaling_page").page_of(values)


@pytest.mark.slow
def test_a_work_is_a_process_that_answers_line_by_line(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a compiled step, where there is a C++ compiler."""
    monkeypatch.setenv("TORCHINDUCTOR_VEC_ISA_OK", "0")  # looking for vector instructions takes ten seconds
    turns = script("turns")
    arguments = ["--library", "byol", "--backbone", "resnet8_16", "--size", "16", "--batch", "4"]
    if any(map(shutil.which, ("c++", "g++", "clang++"))):
        arguments.append("--compile")
    answers = turns.in_turns({"byol": turns.Work("step.py", *arguments)}, rounds=2, warm_up=1)
    assert [set(answer) for answer in answers["byol"]] == [{"seconds"}] * 2
    assert all(answer["seconds"] > 0 for answer in answers["byol"])


@pytest.mark.slow
def test_dense(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "scenes", train=12, val=4, test=4)
    file, runs = tmp_path / "result.json", tmp_path / "runs"
    words = ["benchmark", "--quick", "--data", f"hf:{data}", "--runs", str(runs), "--out", str(file)]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.chdir(tmp_path)  # where the files that were read are kept
    module = script("dense")
    module.SEEDS = (0,)
    module.PRETRAINING |= {"backbone": "resnet8_16", "image_size": "16", "batch_size": "8", "warmup": "1st"}
    module.main()
    values = json.loads(file.read_text())
    lines = script("dense_tables").dense(values).splitlines()
    assert [line.count("|") for line in lines if line.startswith("| ")] == [6] * 6
    results = [(run / "results.json").read_text() for run in sorted(runs.iterdir())]
    module.main()  # measures nothing again
    assert json.loads(file.read_text())["rows"] == values["rows"]
    assert [(run / "results.json").read_text() for run in sorted(runs.iterdir())] == results
    module.PRETRAINING |= {"tau": "0.5"}
    with pytest.raises(UserError, match=r"byol-0 was started with --tau 0.99, not 0.5: .* move it away"):
        module.main()
