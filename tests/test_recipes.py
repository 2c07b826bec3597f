"""Every packaged recipe loads, starts and takes correct steps when shrunk."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import byol
from byol.config import PretrainConfig
from byol.duration import steps_of
from byol.rundir import RunDirectory
from byol.settings import read_recipe, read_yaml, recipe_names, recipe_text, settings_from


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_is_a_valid_config_with_a_headline(name: str) -> None:
    text = recipe_text(name)
    assert text.startswith("# ") and len(text.splitlines()[0]) < 110
    settings_from(PretrainConfig, read_yaml(PretrainConfig, text, name))


PUBLISHED = {  # epochs, batch size, base learning rate, weight decay, tau
    "imagenet-40": ("40", 4096, 0.45, 1e-6, 0.97),
    "imagenet-100": ("100", 4096, 0.45, 1e-6, 0.99),
    "imagenet-300": ("300", 4096, 0.30, 1e-6, 0.99),
    "imagenet-1000": ("1000", 4096, 0.20, 1.5e-6, 0.996),
    "imagenet-1000-bs512": ("1000", 512, 0.40, 1.5e-6, 0.9995),
}
"""`configs/byol.py` and `main_loop.py` of the official code; the last row is BYOL's appendix G."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_imagenet_recipe_is_the_published_one(name: str) -> None:
    settings = read_recipe(PretrainConfig, name)
    config = settings_from(PretrainConfig, settings)
    rates = (config.epochs, config.batch_size, config.base_lr, config.weight_decay, config.tau)
    assert rates == PUBLISHED[name]
    assert (config.method, config.optimizer, config.warmup) == ("byol", "lars", "10ep")
    assert (config.backbone, config.stem, config.image_size) == ("resnet50", "standard", 224)
    assert (config.projection_size, config.projection_hidden_size) == (256, 4096)
    assert (config.preset, config.crop_scale, config.holdout, config.accumulate) == ("official", None, 0, 1)
    # Nothing is left to a default that may change, and nothing else is set.
    assert settings.keys() == {
        *("data", "holdout", "backbone", "stem", "image_size", "projection_size", "projection_hidden_size"),
        *("preset", "batch_size", "epochs", "warmup", "optimizer", "base_lr", "weight_decay", "tau"),
        "precision",
    }


def test_every_imagenet_recipe_is_compared() -> None:
    assert {name for name in recipe_names() if name.startswith("imagenet")} == set(PUBLISHED)


PIXPRO = {
    "method": "pixpro",
    "backbone": "resnet50",
    "stem": "standard",
    "image_size": 224,
    "projection_size": 256,
    "projection_hidden_size": 4096,
    "propagation_layers": 1,
    "propagation_gamma": 2,
    "positive_distance": 0.7,
    "instance_weight": 0,
    "preset": "pixpro",
    "batch_size": 8 * 128,
    "warmup": "5ep",
    "warmup_start": 1 / 100,
    "final_lr": 1e-6,
    "optimizer": "lars",
    "base_lr": 1.0,
    "weight_decay": 1e-5,
    "tau": 0.99,
    "checkpoint_every": "10ep",
    "precision": "bf16",
    "holdout": 0,
    "data": "folder:imagenet",
}
"""`tools/pixpro_base_r50_{100,400}ep.sh` and `contrast/option.py` of the official code, beside ours."""


@pytest.mark.parametrize("epochs", ["100", "400"])
def test_pixpro_recipe_is_the_published_one(epochs: str) -> None:
    name = f"pixpro-{epochs}"
    settings = read_recipe(PretrainConfig, name)
    config = settings_from(PretrainConfig, settings)
    expected = {**PIXPRO, "epochs": epochs}
    assert {field: getattr(config, field) for field in settings} == expected  # and nothing else is set
    assert (config.crop_scale, config.accumulate, config.target_statistics) == (None, 1, "own")


def test_recipes_are_listed_by_length() -> None:
    names = [name for name in recipe_names() if name.startswith(("imagenet", "cifar"))]
    minutes = ["cifar-1min", "cifar-10min", "cifar-20min"]
    assert names == ["cifar10-200", "cifar10-1000", "cifar10-cpu", *minutes, *PUBLISHED]


def expected_rates(
    config: PretrainConfig, batch_size: int, steps_per_epoch: int, step: int
) -> tuple[float, float]:
    """Return learning rate and tau of a 0-based step of the whole recipe, by the published formulas."""
    assert config.base_lr is not None and config.tau is not None and config.warmup is not None
    total = steps_of(config.epochs, "epochs", steps_per_epoch)
    share = float(config.warmup.rstrip("ep%"))
    warmup = (
        share * steps_per_epoch if config.warmup.endswith("ep") else math.floor(share / 100 * total + 0.5)
    )
    peak = config.base_lr * batch_size / 256
    progress = (step - warmup) / (total - warmup)
    rising = peak * (config.warmup_start + (1 - config.warmup_start) * step / max(warmup, 1))
    falling = config.final_lr + (peak - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
    rate = rising if step < warmup else falling
    return rate, 1 - (1 - config.tau) * (math.cos(math.pi * (step + 1) / total) + 1) / 2


SMALLER = {"backbone": "resnet8_16", "stem": "strided", "image_size": 32, "projection_hidden_size": 64}


@pytest.mark.parametrize(
    ("name", "shrunk"),
    [("cifar10-cpu", {}), ("photographs-cpu", {}), ("photographs", SMALLER)]
    + [(name, {"projection_hidden_size": 64}) for name in ("cifar10-200", "cifar10-1000")]
    + [
        (name, SMALLER)
        for name in ("cifar-1min", "cifar-10min", "cifar-20min", "pixpro-100", "pixpro-400", *PUBLISHED)
    ],
)
def test_recipe_takes_correct_steps(
    name: str, shrunk: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop the whole recipe, with a smaller batch, after three steps: rates are those of the long run."""
    from byol.training.callbacks import StopOnSignal
    from byol.training.errors import Interrupted

    original = StopOnSignal.__call__

    def stop_at_three(self: StopOnSignal, module: Any) -> None:
        self.received = 15 if module.step == 3 else 0
        original(self, module)

    monkeypatch.setattr(StopOnSignal, "__call__", stop_at_three)
    settings = read_recipe(PretrainConfig, name)
    config = settings_from(PretrainConfig, settings)
    images = torch.randint(0, 256, (100, 3, 32, 32), dtype=torch.uint8)
    small = {**shrunk, "batch_size": 16, "log_every": "1st", "out": str(tmp_path / "run")}
    with pytest.raises(Interrupted):
        byol.pretrain(**{**settings, **small, "data": images})
    metrics = RunDirectory(tmp_path / "run").metrics()
    assert len(metrics) == 3
    steps_per_epoch = 100 // 16  # of images without labels none is held out
    for step, record in enumerate(metrics):
        rate, tau = expected_rates(config, 16, steps_per_epoch, step)
        assert record["lr"] == pytest.approx(rate, rel=1e-9, abs=1e-15)
        assert record["tau"] == pytest.approx(tau, rel=1e-9)
        assert 0 < record["loss"] < 8
