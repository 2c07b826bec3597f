"""Pretraining on EMNIST: one channel, whichever of the six splits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import datasets as published

import byol
from byol.data.torchvision_sets import EMNIST_SPLITS
from tests.named_sets import random_images, write_emnist


@pytest.mark.parametrize("variant", EMNIST_SPLITS)
def test_every_split_trains(
    variant: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nebulised/BYOL-Pytorch stops at the first image, which has one channel where it wants three."""
    first = 1 if variant == "letters" else 0
    labels = [first + number % 10 for number in range(40)]
    digest = write_emnist(tmp_path, variant, random_images(40, 28, 1)[:, 0], labels)
    monkeypatch.setattr(published.EMNIST, "md5", digest)
    short = {**tiny, "epochs": "2st", "batch_size": 8, "log_every": "1st"}
    run = byol.pretrain(f"emnist/{variant}", data_dir=str(tmp_path), out=str(tmp_path / "run"), **short)
    assert [record["step"] for record in run.metrics() if "loss" in record] == [1, 2]
    backbone = run.backbone()
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    assert backbone(backbone.preprocess(images)).shape == (2, 64)
