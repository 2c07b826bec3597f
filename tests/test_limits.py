"""The smallest number that each setting takes, and that nothing below it passes, nor what is no number."""

import math
from typing import Any

import pytest

from byol.config import EmbedConfig, EvaluateConfig, PretrainConfig
from byol.errors import UserError

LOWEST: dict[type, dict[int, str]] = {
    PretrainConfig: {
        1: "batch_size accumulate nodes image_size view_size channels projection_size "
        "projection_hidden_size propagation_gamma",
        0: "base_lr final_lr weight_decay num_workers holdout seed instance_weight warmup_start tau",
    },
    EvaluateConfig: {
        1: "draws finetune_batch_size image_size channels",
        0: "seed num_workers void",
    },
    EmbedConfig: {1: "image_size channels", 0: "num_workers"},
}
CASES = [
    (kind, name, low)
    for kind, settings in LOWEST.items()
    for low, names in settings.items()
    for name in names.split()
]


def made(kind: Any, name: str, value: float) -> Any:
    required: dict[str, Any] = {} if kind is PretrainConfig else {"target": "run"}
    if kind is EmbedConfig:
        required["out"] = "vectors.parquet"
    if name in ("propagation_gamma", "instance_weight"):
        required["method"] = "pixpro"
    return kind(**required, **{name: value})


@pytest.mark.parametrize(("kind", "name", "low"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_the_lowest_number_passes_and_nothing_below_it(kind: Any, name: str, low: int) -> None:
    assert getattr(made(kind, name, low), name) == low
    for below in (low - 1, math.nan):
        with pytest.raises(
            UserError, match=f"^{name} is {below}, it must (be at least {low}$|lie between 0 and)"
        ):
            made(kind, name, below)


@pytest.mark.parametrize("name", ["crop_scale", "positive_distance", "pixel_temperature"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_what_must_exceed_zero(name: str, value: float) -> None:
    method = {"positive_distance": "pixpro", "pixel_temperature": "pixcontrast"}.get(name, "byol")
    with pytest.raises(UserError, match=f"^{name} is {value}, it must "):
        PretrainConfig(method=method, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["tau", "warmup_start", "crop_scale"])
def test_shares_end_at_one(name: str) -> None:
    assert getattr(PretrainConfig(**{name: 1.0}), name) == 1  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"^{name} is 1.01, it must lie between 0 and 1$"):
        PretrainConfig(**{name: 1.01})  # type: ignore[arg-type]
