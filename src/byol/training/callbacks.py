"""What happens between optimizer steps: measure, save, stop when asked."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from byol.bundle import save_bundle
from byol.rundir import RunDirectory
from byol.training import checkpoint
from byol.training.errors import Interrupted, NonFiniteError
from byol.training.module import Pretraining
from byol.training.progress import Progress
from byol.training.watch import COLLAPSED_STD, collapse_message

StepAction = Callable[[Pretraining], None]


class StepEnd(L.Callback):
    """Calls `starts` when training starts and `actions` after every optimizer step, in order."""

    def __init__(self, clock: "Clock") -> None:
        self.clock = clock
        self.starts: list[Callable[[], None]] = []
        self.actions: list[StepAction] = []

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        # Here and not earlier: Lightning has just installed its own signal handlers.
        for start in self.starts:
            start()
        self.clock.loop_continues()

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        self.clock.batch_starts()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        self.clock.batch_ends(module.plan.micro_batch_size * module.plan.processes)
        if (batch.position + 1) % module.plan.accumulate == 0:
            for action in self.actions:
                action(module)
        self.clock.loop_continues()


class Clock:
    """Seconds spent in steps and waiting for the next batch since the last reading."""

    def __init__(self) -> None:
        self.images = 0
        self.working = self.waiting = 0.0
        self.mark = time.perf_counter()

    def batch_starts(self) -> None:
        """The batch has arrived."""
        now = time.perf_counter()
        self.waiting += now - self.mark
        self.mark = now

    def batch_ends(self, images: int) -> None:
        """The step is done (on a GPU: queued)."""
        self.working += time.perf_counter() - self.mark
        self.images += images

    def loop_continues(self) -> None:
        """The actions between steps are done; they count neither as work nor as waiting."""
        self.mark = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return images per second and the share of time spent waiting, and start anew."""
        seconds = max(self.working + self.waiting, 1e-9)
        rates = {"images_per_second": self.images / seconds, "data_wait": self.waiting / seconds}
        self.images, self.working, self.waiting = 0, 0.0, 0.0
        return rates


class Monitor:
    """Writes metrics.jsonl and TensorBoard, shows progress, measures hold-out kNN, sounds the alarm."""

    def __init__(
        self,
        run: RunDirectory,
        progress: Progress,
        clock: Clock,
        log_metrics: Callable[[dict[str, float], int], None],
        log_steps: int,
        knn_steps: int,
        measure_knn: Callable[[Pretraining], float] | None,
    ) -> None:
        """Log every `log_steps`; measure kNN every `knn_steps` (0: never) where there are labels."""
        self.run = run
        self.progress = progress
        self.clock = clock
        self.log_metrics = log_metrics
        self.log_steps = log_steps
        self.knn_steps = knn_steps
        self.measure_knn = measure_knn
        self.alarmed = False

    def __call__(self, module: Pretraining) -> None:
        last = module.step == module.settings.total_steps
        if self.measure_knn and self.knn_steps and (module.step % self.knn_steps == 0 or last):
            self._write(module, {"knn": self.measure_knn(module)})
        if module.step % self.log_steps == 0 or last:
            self._log(module)

    def _log(self, module: Pretraining) -> None:
        if bool(module.watch.nonfinite):
            raise NonFiniteError(
                f"the loss is not finite by step {module.step}. The last good checkpoint is kept. "
                "Lower --base-lr, lengthen --warmup, or use --precision fp32"
            )
        record = module.watch.summary()
        record |= {"lr": module.last_learning_rate, "tau": module.learner.tau}
        collapsed = record["std"] < COLLAPSED_STD and module.step > module.settings.warmup_steps
        if collapsed:
            record["collapsed"] = True
        self._write(module, record | self.clock.read())
        if collapsed and not self.alarmed:
            self.alarmed = True
            self.progress.say("warning: " + collapse_message(record["std"], module.learner.tau))

    def _write(self, module: Pretraining, values: dict[str, Any]) -> None:
        epoch = round(module.step / module.plan.steps_per_epoch, 4)
        record = {"step": module.step, "epoch": epoch, **values}
        self.run.append_metrics(record)
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        self.log_metrics(numbers, module.step)
        self.progress.show(record)


class Checkpoints:
    """Saves checkpoint and bundle every so many steps, at the last one, and when told to."""

    def __init__(
        self,
        run: RunDirectory,
        config: dict[str, Any],
        architecture: dict[str, Any] | None,
        every_steps: int,
    ) -> None:
        self.run = run
        self.config = config
        self.architecture = architecture
        self.every_steps = every_steps
        self.saved_step = -1

    def __call__(self, module: Pretraining) -> None:
        last = module.step == module.settings.total_steps
        if last or (self.every_steps and module.step % self.every_steps == 0):
            self.save(module)

    def save(self, module: Pretraining) -> None:
        """Save now, unless this step is saved already."""
        if module.step == self.saved_step or not module.trainer.is_global_zero:
            return
        state = checkpoint.checkpoint_of(module, module.trainer.optimizers[0], self.config)
        checkpoint.save(state, self.run.last_checkpoint)
        self._save_bundle(module)
        self.saved_step = module.step

    def _save_bundle(self, module: Pretraining) -> None:
        origin = {
            "method": self.config["method"],
            "data": self.config["data"],
            "epoch": round(module.step / module.plan.steps_per_epoch, 4),
            "seed": self.config["seed"],
        }
        save_bundle(self.run.model, module.learner.backbone, self.architecture, origin)


class StopOnSignal:
    """Turns a stop signal into a flag; after the current step all processes save and stop."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self, save: StepAction, run_path: str) -> None:
        self.save = save
        self.run_path = run_path
        self.received = 0
        self.before: dict[int, Any] = {}

    def install(self) -> None:
        """Take over the signals; only a process's main thread may."""
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._receive) for number in self._SIGNALS}

    def uninstall(self) -> None:
        """Give the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self, module: Pretraining) -> None:
        number = self._agreed(module)
        if number:
            self.save(module)
            raise Interrupted(number, self.run_path)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def _agreed(self, module: Pretraining) -> int:
        """Return the signal that any process received, the same on all of them."""
        if not (dist.is_available() and dist.is_initialized()):
            return self.received
        flag = torch.tensor(self.received, device=module.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return int(flag)
