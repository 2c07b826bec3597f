"""Every packaged recipe loads, starts and takes correct steps when shrunk."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import byol
from byol.config import PretrainConfig
from byol.rundir import RunDirectory
from byol.settings import read_yaml, recipe_names, recipe_text, settings_from


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_is_a_valid_config_with_a_headline(name: str) -> None:
    text = recipe_text(name)
    assert text.startswith("# ") and len(text.splitlines()[0]) < 110
    settings_from(PretrainConfig, read_yaml(PretrainConfig, text, name))


def expected_rates(
    config: PretrainConfig, batch_size: int, steps_per_epoch: int, step: int
) -> tuple[float, float]:
    """Return learning rate and tau of a 0-based step of the whole recipe, by the published formulas."""
    assert config.base_lr is not None and config.tau is not None and config.warmup is not None
    total = int(config.epochs) * steps_per_epoch
    share = float(config.warmup.rstrip("ep%"))
    warmup = (
        share * steps_per_epoch if config.warmup.endswith("ep") else math.floor(share / 100 * total + 0.5)
    )
    peak = config.base_lr * batch_size / 256
    progress = (step - warmup) / (total - warmup)
    rate = peak * step / warmup if step < warmup else peak * 0.5 * (1 + math.cos(math.pi * progress))
    return rate, 1 - (1 - config.tau) * (math.cos(math.pi * (step + 1) / total) + 1) / 2


@pytest.mark.parametrize("name", ["cifar10-cpu", "cifar10-200", "cifar10-1000"])
def test_cifar_recipe_takes_correct_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the whole recipe, with a smaller batch, after three steps: rates are those of the long run."""
    from byol.training.callbacks import StopOnSignal
    from byol.training.errors import Interrupted

    original = StopOnSignal.__call__

    def stop_at_three(self: StopOnSignal, module: Any) -> None:
        self.received = 15 if module.step == 3 else 0
        original(self, module)

    monkeypatch.setattr(StopOnSignal, "__call__", stop_at_three)
    settings = read_yaml(PretrainConfig, recipe_text(name), name)
    config = settings_from(PretrainConfig, settings)
    images = torch.randint(0, 256, (100, 3, 32, 32), dtype=torch.uint8)
    small = {"batch_size": 16, "log_every": "1st", "out": str(tmp_path / "run")}
    with pytest.raises(Interrupted):
        byol.pretrain(**{**settings, **small, "data": images})
    metrics = RunDirectory(tmp_path / "run").metrics()
    assert len(metrics) == 3
    for step, record in enumerate(metrics):
        rate, tau = expected_rates(config, 16, 90 // 16, step)
        assert record["lr"] == pytest.approx(rate, rel=1e-9, abs=1e-15)
        assert record["tau"] == pytest.approx(tau, rel=1e-9)
        assert 0 < record["loss"] < 8
