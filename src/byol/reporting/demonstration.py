"""`byol demo`: pretrain on handwritten digits, evaluate, and draw what came out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from byol.data.source import open_source
from byol.evaluation.features import extract
from byol.evaluation.results import print_table
from byol.evaluation.run import evaluate
from byol.reporting.demo_picture import draw_demo
from byol.rundir import RunDirectory, free_path
from byol.training.run import Run, pretrain

RECIPE = "digits"


def demo(out: str | None = None, seed: int = 0, **settings: Any) -> Run:
    """Pretrain on 8x8 digits without labels, evaluate with few and with all labels, draw a picture.

    Args:
        out: run directory, which must not exist; None: the next free runs/demo-N.
        seed: of weights, order and views.
        **settings: of `byol.pretrain`, instead of the recipe's (a shorter run, say).

    Returns:
        The run; `demo.png` lies in its directory beside the usual files.

    Raises:
        UserError: the directory exists, or a setting is wrong.
    """
    started = time.monotonic()
    path = Path(out) if out is not None else free_path("runs/demo")
    with _one_thread():
        return _demo(path, seed, settings, started)


def _demo(path: Path, seed: int, settings: dict[str, Any], started: float) -> Run:
    print("Pretraining on 8x8 images of handwritten digits, without their labels.", flush=True)
    ours = {"recipe": RECIPE, "seed": seed, "devices": 1, "compile": "off"}
    run = pretrain(**{**ours, **settings, "out": str(path)})
    print("Evaluating on the 500 test images: 1, 5, 10 and all labels per class.", flush=True)
    print_table(evaluate(run.path, protocol="knn,logistic", labels="1,5,10,all", draws=5, baselines=True))
    picture = _draw(run)
    print(f"\npicture: {picture}\nresults: {RunDirectory(run.path).results_file}")
    print(f"views:   {RunDirectory(run.path).views_picture} (what the network was shown)")
    print(f"{time.monotonic() - started:.0f} seconds.")
    print("Next: byol pretrain --recipe photographs --data folder:YOUR/IMAGES")
    return run


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the network is too small to share out, and any other load on the
    machine would make threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _draw(run: Run) -> Path:
    source = open_source("digits")
    assert source.test is not None
    backbone = run.backbone()
    assert backbone.preprocess is not None
    features = extract(backbone, backbone.preprocess, source.test)
    file = run.path / "demo.png"
    draw_demo(file, run.metrics(), features, source.test)
    return file
