"""Settings and small data that several tests share."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.programs import finished

# Two test processes on two cores: threads of their own would only get in each other's way.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from tests that are not about them: a CPU repeats runs bit for bit, and compiles nothing."""
    if "gpu" not in config.option.markexpr.replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="module", autouse=True)
def nothing_compiled() -> None:
    """What the tests of another file compiled does not count against this one's: torch keeps eight graphs of
    one function, and all modules that are compiled in place share one."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Settings of a run of six optimizer steps on digits, in about a second."""
    return {
        "backbone": "resnet8_16",
        "projection_size": 16,
        "projection_hidden_size": 32,
        "batch_size": 64,
        "epochs": "6st",
        "optimizer": "adamw",
        "log_every": "2st",
        "checkpoint_every": "3st",
        "knn_every": "3st",
    }


@pytest.fixture(scope="session")
def byol_command() -> Any:
    """Run the command line in a process of its own and return what it did."""

    def run(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return finished([sys.executable, "-m", "byol", *words], cwd=cwd, **environment)

    return run


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 smooth random pictures of different sizes in two classes."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for index in range(24):
        height, width = generator.integers(40, 80, size=2)
        coarse = generator.integers(0, 256, size=(5, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        name = folder / ("cats" if index % 2 else "dogs") / f"{index:02}.png"
        name.parent.mkdir(exist_ok=True)
        picture.save(name)
    return folder
