"""What only a GPU can show: the fast paths there against the plain ones, and the memory of a step."""

from pathlib import Path
from typing import Any

import pytest
import torch

import byol
from byol.augment.presets import PRESETS
from byol.augment.transfer import sent
from byol.augment.views import columns, draw_pair, made_views
from byol.core.cifar_resnet import CifarResNet
from byol.training.compilation import missing_for_compiling

pytestmark = pytest.mark.gpu


@pytest.fixture
def compiler() -> None:
    """Skip where nothing can be compiled."""
    if missing := missing_for_compiling():
        pytest.skip(f"needs {missing}")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("preset", PRESETS)
def test_compiled_views_equal_those_of_a_cpu(preset: str) -> None:
    torch.compiler.reset()  # of one function only so many graphs are kept
    images, specs = torch.randint(0, 256, (64, 3, 32, 36), dtype=torch.uint8), PRESETS[preset]
    draws = draw_pair(specs, images, torch.Generator().manual_seed(0))
    expected = made_views(images, draws, specs, 24, columns("imagenet", images))
    images = images.cuda()
    there = tuple(sent(draws, images.device))
    compiled = torch.compile(made_views, fullgraph=True, dynamic=False)
    for view, same in zip(
        compiled(images, there, specs, 24, columns("imagenet", images)), expected, strict=True
    ):
        # A rounding error turns the solarization of the few pixels that lie right at the threshold.
        assert float(((view.cpu() - same).abs() > 1e-3).float().mean()) < 1e-3


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_run_goes_as_the_plain_one(precision: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    settings = {**tiny, "log_every": "1st", "epochs": "6st"}
    plain = byol.pretrain("digits", out=str(tmp_path / "plain"), compile="off", **settings)
    fast = byol.pretrain("digits", out=str(tmp_path / "fast"), compile="on", precision=precision, **settings)
    losses = [[m["loss"] for m in run.metrics() if "loss" in m] for run in (plain, fast)]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=0.02 if precision == "bf16" else 2e-3)


def test_one_direction_at_a_time_needs_half() -> None:
    learner = byol.BYOL(CifarResNet(3, 32), 32, None, 32, 64).cuda()
    views = torch.randn(2, 512, 3, 32, 32, device="cuda").unbind()
    needed = []
    for compare in (learner.compare, learner.compare_in_turn, learner.compare, learner.compare_in_turn):
        learner.zero_grad()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        compare(*views).loss.backward()
        needed.append(torch.cuda.max_memory_allocated() - before)
    assert needed[3] < 0.6 * needed[2]
