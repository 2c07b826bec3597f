"""No step waits for its device: the host reads values from there when it logs, saves or measures."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import byol
from byol.augment.presets import preset_named
from byol.core.learner import BYOL
from byol.data.batches import Batch, BatchPlan
from byol.training.module import OptimizerSettings, Pretraining
from byol.training.view_makers import ResidentViews, StreamedViews
from tests.host_reads import HostReads


@pytest.mark.parametrize("online_probe", [False, True])
@pytest.mark.parametrize(("optimizer", "accumulate"), [("lars", 1), ("sgd", 2)])
def test_a_run_reads_nothing_between_two_log_lines(
    optimizer: str,
    accumulate: int,
    online_probe: bool,
    tiny: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The seeds 000 and 002 read the loss in every step."""
    original, before_batch = Pretraining.training_step, []

    def training_step(self: Pretraining, batch: Batch, batch_index: int) -> torch.Tensor:
        before_batch.append(reads.count)
        return original(self, batch, batch_index)

    monkeypatch.setattr(Pretraining, "training_step", training_step)
    lengths = {"epochs": "12st", "log_every": "4st", "checkpoint_every": "0", "knn_every": "0"}
    settings = {**tiny, **lengths, "optimizer": optimizer, "accumulate": accumulate}
    settings |= {"online_probe": online_probe}
    with HostReads() as reads:
        byol.pretrain("digits", out=str(tmp_path / "run"), **settings)
    in_batches = torch.tensor([*before_batch, reads.count]).diff()
    read = (in_batches.view(-1, accumulate).sum(1) > 0).nonzero().flatten() + 1
    assert read.tolist() == [4, 8, 12]


@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize(
    ("preset", "streamed"),
    [("imagenet", False), ("imagenet", True), ("official", True), ("small", False), ("glyph", False)],
)
def test_a_step_on_a_device_whose_values_cannot_be_read(
    preset: str, streamed: bool, momentum: bool, make_net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a GPU, views included, on torch's device `meta`, which has shapes and no values."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know `meta`
    plan, specs = BatchPlan(count=16, batch_size=8), preset_named(preset)
    if streamed:
        make_views: Any = StreamedViews(specs, plan)
        crops = torch.zeros(8, 2, 3, 32, 32, dtype=torch.uint8, device="meta")
        boxes, flipped = crops.new_zeros(8, 2, 4).float(), crops.new_zeros(8, 2).bool()
        batch = Batch(0, crops, boxes=boxes, flipped=flipped)
    else:
        make_views = ResidentViews(torch.zeros(16, 3, 32, 32, dtype=torch.uint8), specs, 32, plan)
        batch = Batch(0, plan.indices(0).to("meta"))
    learner = BYOL(make_net(), 32, -2, 5, 12, use_momentum=momentum)
    settings = OptimizerSettings("lars", 0.1, 1e-4, decay_all=False, warmup_steps=1, total_steps=10)
    module = Pretraining(learner, make_views, settings, plan).to("meta")
    optimizer: Any = module.configure_optimizers()
    for _ in range(2):
        module.optimizer_step(0, 0, optimizer, lambda: module.training_step(batch, 0).backward())
    assert module.step == 2 and module.watch.loss_sum.is_meta
    with pytest.raises(RuntimeError, match="meta"):
        module.watch.summary()
