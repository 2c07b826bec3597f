"""How a training run ends before its last step."""

import signal

from byol.errors import UserError
from byol.rundir import RunDirectory

_ADVICE = "The last good checkpoint is kept. Lower --base-lr, lengthen --warmup, or use --precision fp32"


class NonFiniteError(UserError):
    """The loss or a weight is no longer a finite number; nothing of it was saved."""

    def __init__(self, step: int, advice: str = _ADVICE) -> None:
        super().__init__(f"the loss or a weight is not finite by step {step}. {advice}")


class OutOfMemory(UserError):  # noqa: N818 - it reads as what it is
    """The device's memory does not hold a step."""

    def __init__(self) -> None:
        super().__init__(
            "the GPU's memory is full: --accumulate 2 computes each batch in two halves; --precision bf16, a "
            "smaller --batch-size or --view-size take less, too; where it was kNN: --knn-every 0"
        )


class LostProcessError(UserError):
    """Another process of the run has ended before its time, so that this one cannot go on."""

    is_told = False
    """Printed already: a launcher may end this process before the command line gets to it."""

    def __init__(self, rank: int, fate: str, run: RunDirectory) -> None:
        """Tell which process ended, how ("was killed"), and how to go on with the run."""
        super().__init__(f"the process of rank {rank} {fate}, and with it the run; {_how_to_go_on(run)}")


class LostWorkerError(UserError):
    """A process that decodes images has ended before its time."""

    def __init__(self, message: str, run: RunDirectory) -> None:
        """Tell what happened, as `lost_worker_message` has it, and how to go on with the run."""
        super().__init__(f"{message}; {_how_to_go_on(run)}")


def _how_to_go_on(run: RunDirectory) -> str:
    if run.last_checkpoint.is_file():
        return f"continue: byol pretrain --resume {run.path}"
    return f"nothing was saved: remove {run.path}, if it is there, and start again"


class Interrupted(Exception):  # noqa: N818 - not an error: the run was asked to stop, and can go on
    """A signal asked the run to stop; it was saved after the current step."""

    def __init__(self, number: int, run_path: str, requeued: str | None = None) -> None:
        """Tell which signal, and what continues the run: SLURM, where it was asked to, or the user."""
        told = [f"stopped by {signal.Signals(number).name}", f"continue: byol pretrain --resume {run_path}"]
        if requeued is not None:
            told.insert(1, requeued)
        super().__init__("; ".join(told))
        self.exit_status = 128 + number
