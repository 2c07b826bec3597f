"""The Lightning module: a batch becomes views, a loss, a step, and a move of the target."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from byol.core.backbone import lay_out
from byol.core.base_learner import Learner
from byol.data.batches import Batch, BatchPlan
from byol.optim.groups import parameter_groups
from byol.optim.lars import LARS
from byol.optim.schedules import warmup_cosine
from byol.randomness import DROPOUT, derived_seed
from byol.training.online_probe import OnlineProbe
from byol.training.view_makers import ViewMaker, channels_last
from byol.training.watch import Watch


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer and its schedule, in optimizer steps."""

    name: Literal["lars", "adamw", "sgd"]
    lr: float
    """Peak learning rate, scaled to the batch."""
    weight_decay: float
    decay_all: bool
    """Decay biases and norms too, as SimSiam does."""
    warmup_steps: int
    total_steps: int
    warmup_start: float = 0.0
    """Learning rate of the first step over the peak."""
    final_lr: float = 0.0
    """Learning rate that the cosine falls to."""

    def factor(self, step: int) -> float:
        """Return the factor on the peak learning rate at optimizer step `step` (0-based)."""
        end = self.final_lr / self.lr if self.final_lr else 0.0
        return warmup_cosine(step, self.warmup_steps, self.total_steps, self.warmup_start, end)


def build_optimizer(settings: OptimizerSettings, learner: Learner) -> Optimizer:
    """Return the optimizer over the learner's online parameters, in groups with explicit flags."""
    groups = parameter_groups(learner, learner.named_online_parameters(), settings.weight_decay)
    if settings.decay_all:
        for group in groups:
            group["weight_decay"] = settings.weight_decay
    if settings.name == "lars":
        return LARS(groups, settings.lr)
    device = next(learner.parameters()).device.type
    if settings.name == "adamw":
        fused = device == "cuda" or None  # one kernel there; elsewhere torch decides
        return torch.optim.AdamW(groups, settings.lr, fused=fused)
    # One kernel, and the same numbers; None: torch decides where it has none.
    return torch.optim.SGD(groups, settings.lr, momentum=0.9, fused=device in ("cuda", "cpu") or None)


class Pretraining(L.LightningModule):
    """One learner, its views and its optimizer. `step` counts optimizer steps from the start of the run."""

    def __init__(
        self,
        learner: Learner,
        make_views: ViewMaker,
        settings: OptimizerSettings,
        plan: BatchPlan,
        compile_step: bool = False,
        online_probe: OnlineProbe | None = None,
    ) -> None:
        super().__init__()
        lay_out(learner)
        learner.train()  # a network of the user's own may come in eval mode, its batch statistics frozen
        self.learner = learner
        self.make_views = make_views
        self.settings = settings
        self.plan = plan
        self.online_probe = online_probe
        self.compiled = compile_step
        self.step = 0
        self.last_learning_rate = 0.0
        self.watch = Watch()
        if compile_step:
            for part in self._compiled_parts():
                # Shapes never change; left to itself, torch takes the predictor's batch for variable.
                part.compile(dynamic=False)
        # DistributedDataParallel reads this from the module it wraps, which is this one.
        # Its buffers would be sent to all processes before every step: the images, too.
        self._ddp_params_and_buffers_to_ignore = [
            *(f"learner.{name}" for name in learner._ddp_params_and_buffers_to_ignore),
            *(f"make_views.{name}" for name, _ in make_views.named_buffers()),
            *(f"watch.{name}" for name, _ in self.watch.named_buffers()),
            *(f"online_probe.{name}" for name in (online_probe.state_dict() if online_probe else ())),
        ]

    def run_eagerly(self) -> None:
        """Do without compilation from here on."""
        self.compiled = False
        for part in self._compiled_parts():
            part._compiled_call_impl = None  # what `compile` has set; torch has no way back
        self.make_views.run_eagerly()

    def _compiled_parts(self) -> list[nn.Module]:
        parts = (self.learner.online, self.learner.predictor, self.learner.target)
        return [part for part in parts if part is not None]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of one micro-batch."""
        # Dropout and the like draw from the global generator: derived, so that resuming is exact.
        torch.manual_seed(derived_seed(self.plan.seed, DROPOUT, batch.position, self.plan.rank))
        if batch.position % self.plan.accumulate == 0:
            self.zero_grad()
        views: tuple[Any, Any] = channels_last(self.make_views(batch))
        if not self.learner.takes_views:
            views = views[0].image, views[1].image
        output = self.learner.compare_in_turn(*views, 1 / self.plan.accumulate)
        self.watch.see(output)
        if self.online_probe is not None:
            assert batch.labels is not None
            self.online_probe.learn(output.representation, batch.labels, 1 / self.plan.accumulate)
        return output.loss

    def configure_optimizers(self) -> Optimizer:
        """Return the learner's optimizer; its learning rate is set before every step."""
        if self.online_probe is not None:
            self.online_probe.begin()
        return build_optimizer(self.settings, self.learner)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Do nothing: Lightning calls this behind the first direction's backward (see `compare_in_turn`)."""

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Set the learning rate, step, and move the target: once per optimizer step, from this one place."""
        factor = self.settings.factor(self.step)
        self.last_learning_rate = self.settings.lr * factor
        for group in optimizer.param_groups:
            group["lr"] = self.last_learning_rate
        optimizer.step(closure=optimizer_closure)
        self.learner.update_moving_average()
        if self.online_probe is not None:
            self.online_probe.step(factor)
        self.step += 1
