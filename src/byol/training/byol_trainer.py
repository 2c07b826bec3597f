"""`byol.BYOLTrainer`: a network, a dataset, a number of steps; in one process or several."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from byol.allocation import memory_kept
from byol.config.choices import at_least
from byol.core.learner import BYOL
from byol.data.batches import BatchPlan
from byol.data.dataset_images import require_map_style, sample_image
from byol.data.workers import stacked, start_method
from byol.errors import UserError
from byol.randomness import CROPS, DROPOUT, derived_generator, derived_seed
from byol.rundir import write_state
from byol.training.accelerator_options import AcceleratorOptions
from byol.training.clock import Clock
from byol.training.loop import Loop
from byol.training.process_group import end_soon_after_error
from byol.training.processes import agreed, join_processes
from byol.training.progress import Progress

_LOG_EVERY = 50
_STATE_FILE = "trainer.pt"


class BYOLTrainer:
    """Train a network of your own on a dataset: make a trainer, then call it.

    The script that does so runs as it is in one process, under `torchrun --nproc-per-node N` and under
    `accelerate launch`::

        trainer = byol.BYOLTrainer(
            resnet,
            dataset=dataset,
            image_size=256,
            hidden_layer="avgpool",
            learning_rate=3e-4,
            num_train_steps=100_000,
        )
        trainer()

    Several processes share every epoch: each image is seen once, an incomplete last step is left out,
    and the order is a new one each epoch. On GPUs batch statistics are computed over all of them.

    Every `checkpoint_every` steps and after the last one, the first process writes `checkpoint.1.pt`,
    `checkpoint.2.pt`, ...: the network's state dict and nothing else, for `torch.load` and for
    `byol evaluate FILE`. Beside them it renews `trainer.pt`, from which a new trainer goes on::

        trainer.load_state_dict(torch.load("checkpoints/trainer.pt"))
        trainer()

    Everything random follows from torch's generator at construction (`torch.manual_seed`) and the step,
    so that a run repeats, and one that was stopped and goes on ends where an uninterrupted one ends
    (on CPUs bit for bit, where no `num_workers` draw random numbers of their own).

    Args:
        net: any module that takes [B,C,H,W]; trained in place, moved to the process's device.
        image_size: side S of the views in pixels; the images may have another size.
        hidden_layer: whose output is the representation, as `BYOL` takes it.
        learning_rate: constant; it is not scaled to the number of processes.
        dataset: map-style; its samples are images [C,H,W] of one size, uint8 or float in [0,1], alone
            or first in a tuple.
        num_train_steps: optimizer steps in all.
        batch_size: images per process and batch.
        optimizer_klass: called with the parameters that the loss trains and `lr`.
        checkpoint_every: steps between two checkpoints.
        checkpoint_folder: made if it is missing.
        byol_kwargs: further arguments of `BYOL`.
        optimizer_kwargs: further arguments of `optimizer_klass`.
        accelerator_kwargs: as of accelerate's Accelerator: `mixed_precision` ("no" or "bf16"),
            `gradient_accumulation_steps` (batches per optimizer step), `cpu` (stay there).
        num_workers: processes that read the dataset, for each of the training processes.

    Attributes:
        net: the network.
        byol: the learner around it.
        optimizer: over `byol.online_parameters()`.

    Raises:
        UserError: the network or an argument is not as it should be, or the dataset holds less than a step.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        image_size: int,
        hidden_layer: str | int | None,
        learning_rate: float,
        dataset: Dataset[Any],
        num_train_steps: int,
        batch_size: int = 16,
        optimizer_klass: Callable[..., Optimizer] = torch.optim.Adam,
        checkpoint_every: int = 1000,
        checkpoint_folder: str | Path = "./checkpoints",
        byol_kwargs: Mapping[str, Any] | None = None,
        optimizer_kwargs: Mapping[str, Any] | None = None,
        accelerator_kwargs: Mapping[str, Any] | None = None,
        num_workers: int = 0,
    ) -> None:
        self.num_train_steps, self.checkpoint_every = num_train_steps, checkpoint_every
        at_least(self, 1, "num_train_steps", "checkpoint_every")
        options = AcceleratorOptions.of(accelerator_kwargs or {})
        self.process = join_processes(options.cpu)
        # Before the learner looks where it is: on several GPUs it synchronises batch normalisation.
        self.net = net.to(self.process.device)
        learner = BYOL(net, image_size=image_size, hidden_layer=hidden_layer, **(byol_kwargs or {}))
        self.byol = learner.to(self.process.device)
        self.optimizer = optimizer_klass(
            self.byol.online_parameters(), lr=learning_rate, **(optimizer_kwargs or {})
        )
        self.dataset = dataset
        self.checkpoint_folder = Path(checkpoint_folder)
        self.num_workers = num_workers
        self._plan = self._batch_plan(batch_size, options.gradient_accumulation_steps)
        self._loop = Loop(self.byol, self.optimizer, self._in_parallel(), options.autocast_type)

    @property
    def step(self) -> int:
        """Number of optimizer steps taken."""
        return self._loop.step

    def __call__(self) -> None:
        """Train to `num_train_steps`: from the start, or from where the last call or a loaded state stopped.

        Raises:
            UserError: a sample is no image, or a checkpoint cannot be written.
            NonFiniteError: a loss or a weight is no finite number; it was not saved.
        """
        # Every step seeds torch's global generator; the caller's is given back as it was.
        # Only the CPU's: asking for the GPUs' would start work on every one of them.
        with torch.random.fork_rng(devices=[]), memory_kept(), self._among_others():
            self._train()

    def state_dict(self) -> dict[str, Any]:
        """Return what going on needs: both networks, the predictor, the optimizer, the step, the seed."""
        return {
            "step": self.step,
            "seed": self._plan.seed,
            "learner": self.byol.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put a state into a trainer that was made with the same arguments, in every process."""
        self.byol.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._loop.step = state["step"]
        self._plan = replace(self._plan, seed=state["seed"])

    def _batch_plan(self, batch_size: int, accumulate: int) -> BatchPlan:
        require_map_style(self.dataset)
        if batch_size < 2:
            raise UserError(f"batch_size is {batch_size}: batch statistics need two images or more")
        count, per_step = len(self.dataset), batch_size * accumulate * self.process.count  # type: ignore[arg-type]
        if count < per_step:
            raise UserError(
                f"the dataset has {count} images, and a step takes {per_step} ({self.process.count} "
                f"processes, {accumulate} batches of {batch_size}): lower batch_size"
            )
        # The global generator may differ between processes; the order of the images must not.
        seed = agreed(int(torch.randint(2**62, ())), self.process)
        return BatchPlan(count, per_step, accumulate, self.process.count, self.process.rank, seed)

    def _in_parallel(self) -> nn.Module:
        if self.process.count == 1:
            return self.byol
        on_gpu = self.process.device.type == "cuda"
        return DistributedDataParallel(self.byol, device_ids=[self.process.device] if on_gpu else None)

    @contextmanager
    def _among_others(self) -> Iterator[None]:
        """Go on together with the other processes after training; after an error, without them."""
        try:
            yield
            if self.process.count > 1:
                dist.barrier()  # what the first process wrote is there for all
        except BaseException:
            if self.process.count > 1:
                end_soon_after_error()
            raise

    def _train(self) -> None:
        progress, clock = Progress(self.num_train_steps), Clock()
        batches = iter(self._loader())
        self.byol.train()
        try:
            while self.step < self.num_train_steps:
                self._take_step(batches, clock)
                self._after_step(progress, clock)
                clock.loop_continues()
        finally:
            if self.process.is_first:
                progress.close()

    def _loader(self) -> DataLoader[Tensor]:
        """Return the rest of the run: one pass through the plan, without a stop between epochs."""
        plan, first_step = self._plan, self.step
        positions = range(first_step * plan.accumulate, self.num_train_steps * plan.accumulate)
        return DataLoader(
            self.dataset,
            batch_sampler=(plan.indices(position).tolist() for position in positions),
            num_workers=self.num_workers,
            multiprocessing_context=start_method(self.num_workers),
            collate_fn=_stacked,
            pin_memory=self.process.device.type == "cuda",
            generator=derived_generator(plan.seed, CROPS, first_step, plan.rank),  # seeds the workers
        )

    def _take_step(self, batches: Iterator[Tensor], clock: Clock) -> None:
        torch.manual_seed(derived_seed(self._plan.seed, DROPOUT, self.step, self.process.rank))
        taken = [next(batches) for _ in range(self._plan.accumulate)]
        clock.batch_starts()
        self._loop(taken)
        clock.batch_ends(self._plan.batch_size)

    def _after_step(self, progress: Progress, clock: Clock) -> None:
        last = self.step == self.num_train_steps
        if last or self.step % min(_LOG_EVERY, math.ceil(self.num_train_steps / 3)) == 0:
            epoch = self.step / self._plan.steps_per_epoch
            record = {"step": self.step, "epoch": epoch, "loss": self._loop.mean_loss(), **clock.read()}
            if self.process.is_first:
                progress.show(record)
        if last or self.step % self.checkpoint_every == 0:
            self._loop.require_finite()
            if self.process.is_first:
                with clock.set_aside():
                    self._save()

    def _save(self) -> None:
        number = math.ceil(self.step / self.checkpoint_every)
        write_state(self.checkpoint_folder / f"checkpoint.{number}.pt", self.net.state_dict())
        write_state(self.checkpoint_folder / _STATE_FILE, self.state_dict())


def _stacked(samples: list[Any]) -> Tensor:
    """Return the images of some samples as [B,C,H,W]."""
    images = [sample_image(sample) for sample in samples]
    kinds = {str(list(i.shape)) if isinstance(i, Tensor) else f"a {type(i).__name__}" for i in images}
    if len(kinds) > 1 or not isinstance(images[0], Tensor) or images[0].ndim != 3:
        raise UserError(
            f"the dataset's samples hold {' and '.join(sorted(kinds))}: they must be image tensors [C,H,W] "
            "of one size, alone or first in a tuple (torchvision.transforms.PILToTensor, CenterCrop)"
        )
    return stacked(images)
