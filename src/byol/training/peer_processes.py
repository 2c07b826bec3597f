"""The other processes of a run, from their start to their end: none of them waits for one that is gone."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from byol.errors import UserError
from byol.rundir import RunDirectory
from byol.training.errors import LostProcessError
from byol.training.process_group import end_soon_after_error, leave, leave_at_exit
from byol.training.process_watch import ProcessWatch, StartedProcesses, connect, inherited_connection
from byol.training.processes import Launch, command_again

# Processes that this one starts run the same command; they must not choose another folder.
RUN_PATH_VARIABLE = "BYOL_RUN_PATH"
_SECONDS_TO_NOTICE = 3


class PeerProcesses(L.Callback):
    """Starts the other processes where nobody else does, and ends the run where one of them ends."""

    has_started_some = False
    """This program has started processes before: they ran the same program, up to that run."""

    def __init__(
        self, launch: Launch, trainer: L.Trainer, run: RunDirectory, say: Callable[[str], None], is_new: bool
    ) -> None:
        """Know the run, what shows a line, and whether it is new: of one that saved nothing nothing stays."""
        self.launch = launch
        self.trainer = trainer
        self.run = run
        self.say = say
        self.is_new = is_new
        self.was_started = False
        """This process is one of those that another one has started."""
        self.watch = ProcessWatch(trainer.global_rank, self._leave)
        self.started: StartedProcesses | None = None
        # Taken over before workers are forked, who must not keep it open.
        self.inherited = inherited_connection()

    def start(self) -> None:
        """Start the other processes of this machine, unless torchrun or srun has.

        Raises:
            UserError: this program has had several processes before.
        """
        if self.launch.starter != "byol" or self.launch.processes == 1:
            return
        if PeerProcesses.has_started_some or dist.is_initialized():
            raise UserError("a program can start processes for one run only: use another one for the next")
        connections = self.inherited
        os.environ.pop(RUN_PATH_VARIABLE, None)
        self.was_started = bool(connections)
        if not connections:
            os.environ.pop("MASTER_PORT", None)  # another tool's: Lightning would take it, for a free one
            PeerProcesses.has_started_some = True
            self.started = StartedProcesses(command_again(), self.launch.devices, self._variables())
            connections = self.started.connections
        self.watch.start(connections)

    def setup(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        """Connect to processes that were started from outside; they know each other from here on."""
        if self.launch.processes == 1:
            return
        leave_at_exit()
        if self.launch.starter == "byol":
            return
        connections = connect(trainer.global_rank, trainer.world_size, trainer.strategy.broadcast)
        self.watch.start(connections)
        missing = trainer.world_size - 1 - len(connections)
        if trainer.is_global_zero and missing:
            self.say(
                f"byol: warning: {missing} processes cannot connect to this one (a firewall?): "
                "should one of them end, the others may wait for it for ever"
            )

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop computing where another process has ended."""
        if self.watch.ended is not None:
            raise RuntimeError("another process has ended")

    def finish(self) -> None:
        """Let the others know that this process is through with the run; those started here end with it."""
        self.watch.finish()
        if self.started is not None:
            leave()  # they do so when they end; this process goes on, alone
            self.started.wait()

    def cause(self, error: BaseException) -> LostProcessError | None:
        """Return the end of another process, where an error comes from that."""
        ended = self.watch.ended_within(_SECONDS_TO_NOTICE if isinstance(error, RuntimeError) else 0)
        self.watch.over = True
        return None if ended is None else self._error(ended)

    def tell(self, error: LostProcessError) -> None:
        """Print the error, where that is for this process to do."""
        if self.tells:
            with suppress(OSError):  # who reads it may be gone, too; what is left to do gets done
                self.say(f"byol: error: {error}")
                error.is_told = True

    def end(self) -> None:
        """End the processes started here and let go of the others: they would wait for this one."""
        self.watch.part()
        if self.started is not None:
            self.started.kill()
        if dist.is_initialized():
            end_soon_after_error()

    @property
    def tells(self) -> bool:
        """Say whether it is for this process to tell: one on each machine does, and one for the first."""
        return self.trainer.local_rank == 0 or (self.watch.rank, self.watch.ended) == (1, 0)

    def _variables(self) -> dict[str, str]:
        """Return what the processes started here must know."""
        strategy = self.trainer.strategy
        assert isinstance(strategy, DDPStrategy) and strategy.cluster_environment is not None
        port = strategy.cluster_environment.main_port
        return {"MASTER_PORT": str(port), RUN_PATH_VARIABLE: str(self.run.path)}

    def _error(self, rank: int) -> LostProcessError:
        fate = "ended" if self.started is None else self.started.fate(rank)
        return LostProcessError(rank, fate, self.run)

    def _leave(self) -> None:
        """End this process from outside its main thread, which waits for a process that is gone."""
        assert self.watch.ended is not None
        error = self._error(self.watch.ended)
        self.tell(error)
        self.end()
        if self.trainer.is_global_zero and self.is_new and self.trainer.global_step == 0:
            self.run.remove_unless_saved()
        os._exit(2)
