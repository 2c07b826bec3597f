"""What is written of numbers is what is recorded of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def on_a_gpu(name: str, **changes: Any) -> dict[str, Any]:
    """Return a recorded file as if made on a GPU."""
    values: dict[str, Any] = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text())
    return values | {"gpus": ["a GPU of 80 GB"]} | changes


def test_pages_are_those_of_the_recorded_numbers(script: Callable[[str], ModuleType]) -> None:
    for file, text in script("report").pages().items():
        assert file.read_text() == text, f"{file.name} is older than the numbers: python benchmarks/report.py"


def test_comparing_places_takes_a_twentieth_of_the_memory(script: Callable[[str], ModuleType]) -> None:
    """Of the formulation with a value per channel and pair of places, at 14 x 14 places and 32 images."""
    measured = script("recorded").recorded("pixel_memory-cpu")
    assert measured["batch"] == 32
    times = {case["term"]: case["times_less_memory"] for case in measured["cases"] if case["side"] == 14}
    assert times.keys() == {"consistency", "contrast", "propagation"}
    assert min(times.values()) >= 20


@pytest.fixture
def gpu_results(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a folder of results to which made-up ones of a GPU were added."""
    shutil.copytree(BENCHMARKS / "results", folder := tmp_path / "results")
    monkeypatch.setattr(script("recorded"), "RESULTS", folder)
    seconds = {
        "byol": 0.02,
        "byol, views concatenated": 0.03,
        "lightly": None,
        "lightly, channels last": 0.04,
    }
    step = {
        "seconds": seconds,
        "byol_takes": {"lightly": None, "lightly, channels last": 0.5},
        "batch": 256,
        "precision": "bf16",
        "seconds_at_best_rate": 0.01,
        "share_of_floor": 0.5,
        "seconds_at_copy_speed_unfused": 0.015,
        "memory": {
            "bytes_of_the_step": {"byol": None, "lightly": None, "lightly, channels last": 2**30},
            "bytes_to_hold": 2**29,
            "share_of_floor": None,
        },
    }
    epoch = {
        "images_per_second": {"byol": 30000.0, "lightly": 4000.0, "lightly, channels last": None},
        "waiting_for_data": {"byol": 0.0, "lightly": 0.5, "lightly, channels last": None},
        "byol_over": {"lightly": 7.5, "lightly, channels last": None},
        **{"data": "CIFAR-10", "images": 50_000, "backbone": "resnet18", "size": 32, "batch": 512},
        **{"at_most": 60000.0, "share_of_floor": 0.5, "at_copy_speed_unfused": 50000.0},
    }
    views = {"at_copy_speed": 4e6, "products_alone": 2e6}
    views |= {"views_per_second": {"compiled": 600_000, "not compiled": None}}
    made = {
        "step-cuda": on_a_gpu("step-cpu", cases={"resnet50-224": step}),
        "epoch-cuda": on_a_gpu("epoch-cpu", cases={"cifar10": epoch}),
        "views-cuda": on_a_gpu("step-cpu", cases={"small": views}),
    }
    for name, values in made.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


@pytest.mark.usefixtures("gpu_results")
def test_numbers_of_a_gpu_are_in_the_page(script: Callable[[str], ModuleType]) -> None:
    page = script("report").results_page()
    assert "## Views per second where training makes them, on a GPU of 80 GB" in page
    assert "| preset `small` | compiled | 600,000 | 4,000,000 | 2,000,000 | 30% |" in page
    assert "ResNet-50 at 224 px, batch 256, bf16" in page
    assert "| lightly | died |  |  |" in page
    assert "| lightly, channels last | 0.040 | 0.50 | 1,024 |" in page
    assert "| CIFAR-10, resnet18, 32 px, batch 512 | byol | 30,000 | 0% |  | 60,000 | 50% | 50,000 |" in page
    assert " and a GPU of 80 GB, torch" in page


@pytest.mark.usefixtures("gpu_results")
def test_numbers_of_a_gpu_are_in_the_readme(script: Callable[[str], ModuleType]) -> None:
    text = script("report").readme_tables()
    assert "| views/s, 32 px, GPU | 600,000 |  |  |" in text
    step = "seconds a step, ResNet-50 at 224 px, batch 256, GPU"
    assert f"| {step} | 0.0200 | lightly, channels last 0.0400 | 2.00x as fast |" in text
    epoch = "images/s of an epoch, CIFAR-10, resnet18, 32 px, GPU"
    assert f"| {epoch} | 30,000 | lightly 4,000 | 7.50x as fast |" in text


def test_the_readme_compares_with_the_strongest(script: Callable[[str], ModuleType]) -> None:
    """Of every library as it is and its best; what is ours or no library is not among them."""
    seconds = {"byol": 1.0, "byol, compiled": 0.5, "the product alone": 0.4, "scikit-learn": 3.0}
    seconds |= {"lightly": 2.0, "lightly, a": 1.1, "lightly, b": 1.2, "byol-pytorch": 2.5, "dead": None}
    speeds = script("readme_speeds")
    named = ["lightly, a", "lightly", "byol-pytorch", "scikit-learn"]
    assert speeds.strongest(seconds, least=True) == named
    line = speeds._time_line("step", {"seconds": seconds, "byol_takes": {"lightly, a": 0.9259}}, ".1f")
    told = "lightly, a 1.1; lightly 2.0; byol-pytorch 2.5; scikit-learn 3.0"
    assert line == ["step", "1.0", told, "1.08x as fast"]
