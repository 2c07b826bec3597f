"""One process's share of a training run: build everything, let Lightning run it, leave in order."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import nn

from byol.allocation import memory_kept
from byol.config import PretrainConfig
from byol.data.batches import BatchPlan, StartedBatches
from byol.data.workers import lost_worker_message
from byol.errors import UserError, listed
from byol.evaluation.monitor import PatchMonitor, holdout_accuracies
from byol.rundir import RunDirectory
from byol.tracking import Status
from byol.training.advice import advice, decoding_advice
from byol.training.building import batches, build_module, save_initial_weights
from byol.training.callbacks import BetweenSteps, Checkpoints, Monitor, StopOnSignal
from byol.training.clock import Clock
from byol.training.environment import environment
from byol.training.errors import (
    Interrupted,
    LostProcessError,
    LostWorkerError,
    NonFiniteError,
    OutOfMemory,
)
from byol.training.kernels import kernels_timed
from byol.training.loggers import Loggers
from byol.training.module import Pretraining
from byol.training.peer_processes import PeerProcesses
from byol.training.picture import draw_first_views
from byol.training.preparation import PreparedData, worker_count
from byol.training.processes import launch_of
from byol.training.progress import Progress
from byol.training.resolution import Lengths, lengths, view_size
from byol.training.trainer import build_trainer


@dataclass(frozen=True)
class Session:
    """Everything that a run follows from."""

    config: PretrainConfig
    """Resolved."""
    run: RunDirectory
    data: PreparedData
    net: nn.Module | None
    """The user's own network, or None for one by name."""
    hidden_layer: str | int | None
    state: dict[str, Any] | None = None
    """The checkpoint to go on from; None starts anew."""

    def train(self) -> None:
        """Train from the state's step, or from the start, to the end."""
        launch = launch_of(self.config)
        trainer = build_trainer(self.config, launch)
        plan = self._plan(trainer)
        durations = lengths(self.config, plan.steps_per_epoch)
        module = build_module(self.config, self.data, plan, durations, self.net, self.hidden_layer)
        trained = 0.0 if self.state is None else self.state.get("seconds", 0.0)
        clock, progress = Clock(trained), Progress(durations.total)
        loggers = Loggers(self.config, self.run, progress.say)
        settings = self._stored_settings(module.learner.backbone.architecture)
        saving = Checkpoints(self.run, settings, self.data.identity(), durations, clock)
        stop = StopOnSignal(saving.save, str(self.run.path))
        between = BetweenSteps(clock, saving, stop, self.state, self.config.compile == "auto")
        if trainer.is_global_zero:
            between.monitor = self._monitor(module, progress, clock, durations, loggers)
        peers = PeerProcesses(launch, trainer, self.run, progress.say, is_new=self.state is None)
        # Lightning sets this attribute unannounced.
        trainer.callbacks.extend([peers, between])  # type: ignore[attr-defined]
        in_order = self._in_order(module, saving, stop, loggers, peers)
        with (
            closing(progress),
            in_order,
            memory_kept(),
            kernels_timed(),
            closing(self._started(trainer, plan, durations.total)) as started,
        ):
            if trainer.is_global_zero:
                progress.say(self._summary(module))
                self._begin(module, progress, loggers, settings)
                between.first_views = partial(draw_first_views, self.run.views_picture, module, started)
            peers.start()
            trainer.fit(module, started)
        if peers.was_started:
            raise SystemExit(0)  # what comes after the run is for the process that started this one

    @contextmanager
    def _in_order(
        self,
        module: Pretraining,
        saving: Checkpoints,
        stop: StopOnSignal,
        loggers: Loggers,
        peers: PeerProcesses,
    ) -> Iterator[None]:
        """Take over the stop signals for the whole run, and leave in order however it ends: together with
        the other processes, of whose errors the first is the one to tell."""

        def end(status: Status) -> None:
            try:
                stop.interrupt()  # a service may not answer
                with suppress(KeyboardInterrupt):
                    loggers.finish(status)
            finally:
                stop.ignore()

        stop.install()
        try:
            yield
            peers.finish()
            end("FINISHED")
        except Interrupted:
            peers.finish()
            end("KILLED")
            raise
        except BaseException as raised:
            error = self._explained(raised)
            stop.ignore()  # a launcher stops all processes where one ends, and this one is about to
            cause = peers.cause(raised)
            if cause is not None:
                peers.tell(cause)
                error = cause
            if peers.trainer.is_global_zero:
                self._tidy(error, module, saving, end)
            peers.end()
            if error is raised:
                raise
            raise (error if cause is None or peers.tells else SystemExit(2)) from raised
        finally:
            stop.uninstall()

    def _explained(self, error: BaseException) -> BaseException:
        """Return PyTorch's error as one of ours, where people can do something about it."""
        if isinstance(error, torch.OutOfMemoryError):
            return OutOfMemory()
        message = lost_worker_message(error)
        return error if message is None else LostWorkerError(message, self.run)

    def _plan(self, trainer: L.Trainer) -> BatchPlan:
        return BatchPlan(
            len(self.data.pretraining),
            self.config.batch_size,
            self.config.accumulate,
            trainer.world_size,
            trainer.global_rank,
            self.config.seed,
        )

    def _started(self, trainer: L.Trainer, plan: BatchPlan, total_steps: int) -> StartedBatches:
        """Return the batches that are left, in the making: before this process meets the others."""
        accelerator = trainer.strategy.accelerator
        assert accelerator is not None
        # Lightning does so later; a loader pins memory for the device that is chosen when it starts.
        accelerator.setup_device(trainer.strategy.root_device)
        first_step = 0 if self.state is None else self.state["step"]
        return StartedBatches(batches(self.config, self.data, plan, first_step, total_steps))

    def _stored_settings(self, architecture: dict[str, Any] | None) -> dict[str, Any]:
        """Return what config.yaml holds: all but where the run is written and how errors are shown. A stem
        that follows from the image size is written down: what follows might be another one some day."""
        if self.state is not None:
            stored: dict[str, Any] = self.state["config"]
            return stored
        kept = {name: value for name, value in asdict(self.config).items() if name not in ("out", "debug")}
        return kept if architecture is None else kept | {"stem": architecture["stem"]}

    def _monitor(
        self, module: Pretraining, progress: Progress, clock: Clock, durations: Lengths, loggers: Loggers
    ) -> Monitor:
        measure = self._measure(module, progress) if durations.knn else None
        return Monitor(self.run, progress, clock, loggers.log, durations, measure)

    def _measure(
        self, module: Pretraining, progress: Progress
    ) -> Callable[[Pretraining], dict[str, float]] | None:
        """Return what measures kNN, and the online probe, on the hold-out, or kNN of patches where it has
        masks alone; None where it has neither. Training needs no masks: where they do not fit, or the network
        has no map, a line says so."""
        data = self.data
        if len(data.holdout) == 0:
            return None
        if data.train.labels is not None:
            return self._accuracies
        if data.train.masks is None:
            return None
        try:
            module.learner.backbone.prepare_feature_map()
            return partial(self._patch_knn, PatchMonitor.of(data.train, data.holdout, data.name))
        except UserError as error:
            progress.say(f"warning: no patch kNN beside the training: {error}")
            return None

    def _accuracies(self, module: Pretraining) -> dict[str, float]:
        backbone = module.learner.backbone
        assert backbone.preprocess is not None
        return holdout_accuracies(
            backbone,
            backbone.preprocess,
            self.data.train,
            self.data.holdout,
            module.online_probe,
            module.device,
            num_workers=self._decoders(),
        )

    def _patch_knn(self, monitor: PatchMonitor, module: Pretraining) -> dict[str, float]:
        return monitor(module.learner.backbone, module.device, self._decoders())

    def _decoders(self) -> int:
        return 0 if self.data.images is not None else worker_count(self.config)

    def _summary(self, module: Pretraining) -> str:
        """Return what is about to happen, in one line."""
        data, config = self.data, self.config
        names = data.train.class_names or ()
        labels = "without labels" if data.train.masks is None else "with masks"
        if data.train.labels is not None:
            labels = f"{len(names)} classes: {listed(names)}"
        side = view_size(config)
        views = "" if side == config.image_size else f" (views: {side} px)"
        return (
            f"{len(data.pretraining)} images to train on, {len(data.holdout)} held out ({labels}); "
            f"{config.backbone} at {config.image_size} px{views}, {module.settings.name}, "
            f"{module.settings.total_steps} steps of {config.batch_size} images"
        )

    def _begin(
        self, module: Pretraining, progress: Progress, loggers: Loggers, settings: dict[str, Any]
    ) -> None:
        """Write what a new run starts with, or cut back what a stopped one wrote after its checkpoint."""
        steps, own = module.settings.total_steps, self.net is not None
        lines = advice(self.config, self.data, module.learner.backbone, steps, own)
        for line in (*lines, *decoding_advice(self.config, self.data, module.plan)):
            progress.say(line)
        made_with = environment() | {"compiled": module.compiled}
        if self.state is not None:
            self.run.cut_metrics(self.state["step"])
        else:
            self.run.path.mkdir(parents=True, exist_ok=True)
            self.run.write_config(settings)
            self.run.write_environment({**made_with, "left_out": list(self.data.skipped)})
            save_initial_weights(self.run, module)
        loggers.begin(settings, made_with)

    def _tidy(
        self, error: BaseException, module: Pretraining, saving: Checkpoints, end: Callable[[Status], None]
    ) -> None:
        """Leave something to resume from, or nothing: save what was trained before an image that cannot
        be read, say, and remove a run without a checkpoint, unless its log may tell what happened."""
        # These leave the weights broken, or in the middle of a step.
        halfway = isinstance(error, NonFiniteError | LostProcessError | LostWorkerError | OutOfMemory)
        whole = isinstance(error, UserError) and not halfway
        if whole and module.step > 0:
            with suppress(UserError):  # the disk may be what is wrong
                saving.save(module)
        end("FAILED")
        if self.state is None and (whole or module.step == 0):
            self.run.remove_unless_saved()
