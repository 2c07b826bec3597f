"""How a training run ends before its last step."""

import signal

from byol.errors import UserError

_ADVICE = "The last good checkpoint is kept. Lower --base-lr, lengthen --warmup, or use --precision fp32"


class NonFiniteError(UserError):
    """The loss or a weight is no longer a finite number; nothing of it was saved."""

    def __init__(self, step: int, advice: str = _ADVICE) -> None:
        super().__init__(f"the loss or a weight is not finite by step {step}. {advice}")


class Interrupted(Exception):  # noqa: N818 - not an error: the run was asked to stop, and can go on
    """A signal asked the run to stop; it was saved after the current step."""

    def __init__(self, number: int, run_path: str) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; continue: byol pretrain --resume {run_path}")
        self.exit_status = 128 + number
