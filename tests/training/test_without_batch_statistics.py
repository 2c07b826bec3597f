"""BYOL with group norms and standardised weights trains (arXiv 2010.10241)."""

from pathlib import Path
from typing import Any

import pytest

import byol
from byol.config import PretrainConfig
from byol.settings import read_recipe

BATCH_NORM = 0.973
"""kNN with batch norms and the recipe's tau, else as below, seed 0 (docs/log.md; seed 1: .970). To be
measured again when the recipe changes. That it trains with them is what the test of the demo shows."""
RECIPE = {"backbone": "resnet8_24", "batch_size": 64, "base_lr": "8e-3", "tau": 0.99}


@pytest.mark.slow
def test_digits_are_learnt_as_well_without_batch_statistics(tmp_path: Path) -> None:
    """The recipe `digits` at 30 epochs; the slower target is what suits it (docs/log.md)."""
    settings: dict[str, Any] = read_recipe(PretrainConfig, "digits")
    assert RECIPE.items() <= settings.items()
    settings |= {"epochs": "30", "holdout": 400, "knn_every": "30", "checkpoint_every": "0", "logger": "none"}
    settings |= {"normalization": "group", "tau": 0.996}
    metrics = byol.pretrain(out=str(tmp_path / "run"), **settings).metrics()
    assert not any(record.get("collapsed") for record in metrics), "a false alarm"
    knn, last = metrics[-2]["knn"], metrics[-1]
    assert knn > BATCH_NORM - 0.03
    assert last["std"] > 0.45 and last["rank"] > 20, "no collapse"
