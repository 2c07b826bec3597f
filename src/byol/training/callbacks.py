"""What happens between optimizer steps: measure, save, stop when asked."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from byol.bundle import save_bundle
from byol.core.processes import several_processes
from byol.rundir import RunDirectory, write_state
from byol.training import checkpoint
from byol.training.clock import Clock
from byol.training.errors import Interrupted, NonFiniteError
from byol.training.module import Pretraining
from byol.training.processes import is_first_process
from byol.training.progress import Progress
from byol.training.requeue import requeue
from byol.training.resolution import Lengths
from byol.training.warm_up import needs_warm_up, warm_up
from byol.training.watch import collapse_message, has_collapsed
from byol.weights import save_weights

_LONGEST_SECONDS = 3600
"""Between two checkpoints."""


class BetweenSteps(L.Callback):
    """What happens when training starts and after every optimizer step, in this order."""

    def __init__(
        self,
        clock: Clock,
        saving: "Checkpoints",
        stop: "StopOnSignal",
        state: dict[str, Any] | None,
        may_run_eagerly: bool,
    ) -> None:
        """Go on from `state`, if any; where compiling fails, go on without it, if that is allowed."""
        self.clock = clock
        self.saving = saving
        self.stop = stop
        self.state = state
        self.may_run_eagerly = may_run_eagerly
        # Of the first process only.
        self.monitor: Monitor | None = None
        self.first_views: Callable[[], None] | None = None

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self.stop.install()  # again: Lightning has just installed handlers of its own
        if self.state is not None:
            checkpoint.restore(module, trainer.optimizers[0], self.state)
        if self.first_views is not None:
            self.first_views()
        if needs_warm_up(module):
            compiled = module.compiled
            warm_up(trainer, module, self.may_run_eagerly)
            if compiled and not module.compiled and trainer.is_global_zero:
                self.saving.run.amend_environment(compiled=False)
        self.clock.start()

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        self.clock.batch_starts()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        self.clock.batch_ends(module.plan.micro_batch_size * module.plan.processes)
        if (batch.position + 1) % module.plan.accumulate == 0:
            # Logged before it is saved: a record that a checkpoint has passed is never missing.
            if self.monitor is not None:
                self.monitor(module)
            self.saving(module)
            self.stop(module)
        self.clock.loop_continues()


class Monitor:
    """Writes metrics, shows progress, measures hold-out kNN, sounds the alarm."""

    def __init__(
        self,
        run: RunDirectory,
        progress: Progress,
        clock: Clock,
        log: Callable[[dict[str, Any]], None],
        durations: Lengths,
        measure: Callable[[Pretraining], dict[str, float]] | None,
    ) -> None:
        """Log, and measure on a hold-out with labels or masks, as often as `durations` say (0: never)."""
        self.run = run
        self.progress = progress
        self.clock = clock
        self.log = log
        self.log_steps = durations.log
        self.knn_steps = durations.knn
        self.measure = measure
        self.alarmed = False
        self.spreads: dict[int, float] | None = None

    def __call__(self, module: Pretraining) -> None:
        last = module.step == module.settings.total_steps
        records = []
        if self.measure and self.knn_steps and (module.step % self.knn_steps == 0 or last):
            with self.clock.set_aside():
                measured = self.measure(module)
            records.append(self._write(module, measured))
        if module.step % self.log_steps == 0 or last:
            records.append(self._write(module, self._state(module)))
        # After both are written: a logger that fails ends the run, and resuming starts behind this step.
        for record in records:
            self.log(record)

    def _state(self, module: Pretraining) -> dict[str, Any]:
        """Return what is known of the steps since the last call; sound the alarm."""
        if bool(module.watch.nonfinite):
            raise NonFiniteError(module.step)
        record = module.watch.summary()
        record |= {"lr": module.last_learning_rate, "tau": module.learner.tau}
        collapsed = self._has_collapsed(module, record["std"])
        if collapsed:
            record["collapsed"] = True
        if collapsed and not self.alarmed:
            self.alarmed = True
            self.progress.say("warning: " + collapse_message(record["std"], module.learner.tau))
        return record | self.clock.read()

    def _has_collapsed(self, module: Pretraining, spread: float) -> bool:
        if self.spreads is None:  # also those from before the run was resumed
            self.spreads = {record["step"]: record["std"] for record in self.run.metrics() if "std" in record}
        self.spreads[module.step] = spread
        normalization = module.learner.backbone.normalization
        return module.step > module.settings.warmup_steps and has_collapsed(self.spreads, normalization)

    def _write(self, module: Pretraining, values: dict[str, Any]) -> dict[str, Any]:
        epoch = round(module.step / module.plan.steps_per_epoch, 4)
        record = {"step": module.step, "epoch": epoch, **values}
        self.run.append_metrics(record)
        self.progress.show(record)
        return record


class Checkpoints:
    """Saves checkpoint and bundle every so many steps, at the last one, and when told to; keeps bundles."""

    def __init__(
        self,
        run: RunDirectory,
        config: dict[str, Any],
        data: dict[str, Any],
        durations: Lengths,
        clock: Clock,
    ) -> None:
        """Save as often as `durations` say, and once an hour (0: at the end only); keep a bundle as often as
        they say (0: never)."""
        self.clock = clock
        self.run = run
        self.config = config
        self.data = data
        self.every_steps = durations.checkpoint
        self.keep_steps = durations.backbone
        self.saved_step = -1
        self.saved_at = time.monotonic()

    def __call__(self, module: Pretraining) -> None:
        last = module.step == module.settings.total_steps
        keep = bool(self.keep_steps) and module.step % self.keep_steps == 0
        if last or keep or self._is_due(module.step):
            self.save(module)
        if keep and module.trainer.is_global_zero:
            with self.clock.set_aside():
                self._write_bundle(module, self.run.kept_backbone(module.step))

    def save(self, module: Pretraining) -> None:
        """Save now, unless this step is saved already."""
        if module.step == self.saved_step or not module.trainer.is_global_zero:
            return
        with self.clock.set_aside():
            self._write(module, self.clock.seconds())
        self.saved_step = module.step
        self.saved_at = time.monotonic()

    def _is_due(self, step: int) -> bool:
        if not self.every_steps:
            return False
        return step % self.every_steps == 0 or time.monotonic() - self.saved_at > _LONGEST_SECONDS

    def _write(self, module: Pretraining, seconds: float) -> None:
        optimizer = module.trainer.optimizers[0]
        state = checkpoint.checkpoint_of(module, optimizer, self.config, self.data, seconds)
        write_state(self.run.last_checkpoint, state)
        self._write_bundle(module, self.run.model)
        if module.online_probe is not None:
            save_weights(module.online_probe, self.run.online_probe)

    def _write_bundle(self, module: Pretraining, folder: Path) -> None:
        origin = {
            "method": self.config["method"],
            "data": self.config["data"],
            "epoch": round(module.step / module.plan.steps_per_epoch, 4),
            "seed": self.config["seed"],
        }
        save_bundle(folder, module.learner.backbone, origin)


class StopOnSignal:
    """Turns a stop signal into a flag; after the current step all processes save and stop."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self, save: Callable[[Pretraining], None], run_path: str) -> None:
        self.save = save
        self.run_path = run_path
        self.received = 0
        self.before: dict[int, Any] = {}
        self.hosts: Any = None

    def install(self) -> None:
        """Take over the signals; only a process's main thread may.

        Called before Lightning runs, and again after it has installed handlers of its own.
        """
        self._take_over(self._receive)

    def ignore(self) -> None:
        """Let signals change nothing from here on, that of a worker's end among them, which PyTorch makes an
        error: the run ends anyway."""
        self._take_over(lambda number, frame: None, signal.SIGCHLD)

    def interrupt(self) -> None:
        """Let signals raise KeyboardInterrupt from here on: what is done now may wait for ever."""
        self._take_over(signal.default_int_handler)

    def uninstall(self) -> None:
        """Give the signals back to whoever had them before the run."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self, module: Pretraining) -> None:
        number = self._agreed()
        if number:
            self.save(module)
            if several_processes():
                dist.barrier()  # one that ended while another still saves would have that one killed
            asks = number == signal.SIGUSR1 and module.trainer.is_global_zero
            raise Interrupted(number, self.run_path, requeue() if asks else None)

    def _take_over(self, handler: Callable[[int, FrameType | None], Any], *more: signal.Signals) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (*self._SIGNALS, *more):
            self.before.setdefault(number, signal.signal(number, handler))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first, self.received = not self.received, number
        if first and is_first_process():
            told = f"\n{signal.Signals(number).name}: stopping after this step, to save it\n"
            with suppress(OSError):  # who reads it may have been stopped, too
                os.write(2, told.encode())  # past Python's buffers, which this may have interrupted

    def _agreed(self) -> int:
        """Return the signal that any process received, the same on all of them.

        Several processes ask each other after every step, from host to host: none waits for its device.
        """
        if not several_processes():
            return self.received
        if self.hosts is None:
            self.hosts = dist.new_group(backend="gloo")
        flag = torch.tensor(self.received)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self.hosts)
        return int(flag)
