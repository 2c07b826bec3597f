"""The target network: a moving average of the online network that no optimizer touches."""

import copy
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn

from byol.config import Normalization, TargetStatistics
from byol.errors import UserError, require_known
from byol.optim.schedules import cosine_tau


class TargetNetwork(nn.Module):
    """A copy of a network that follows it: xi <- tau xi + (1 - tau) theta (BYOL, equation 3).

    By default only parameters are averaged. Batch normalisation uses each batch's own statistics, as
    the online network does, and keeps its own running statistics (official code, `byol_experiment.py`).

    Args:
        online: the network to copy; its weights at this moment are the target's first.
        tau: decay rate tau_base, 0 to 1.
        total_steps: K of the cosine schedule towards 1; None keeps tau constant.
        statistics: "own", as above. Otherwise each update takes over the online network's buffers,
            and batch normalisation uses these running statistics instead of the batch's, in
            training too: "copy" copies them; "average" averages floats with the parameters' tau and
            copies integers (EMAN, arXiv 2101.07525).

    Raises:
        UserError: `tau` or `total_steps` is out of its range, or `statistics` is unknown.
    """

    step: Tensor

    def __init__(
        self,
        online: nn.Module,
        tau: float,
        total_steps: int | None = None,
        statistics: TargetStatistics = "own",
    ) -> None:
        super().__init__()
        require_known("target_statistics", statistics, get_args(TargetStatistics))
        if not 0 <= tau <= 1:
            raise UserError(f"moving_average_decay is {tau}, it must lie between 0 and 1")
        if total_steps is not None and total_steps < 1:
            raise UserError(f"total_steps is {total_steps}, it must be at least 1")
        self.network = copy.deepcopy(online).requires_grad_(False)
        self.tau_base = tau
        self.total_steps = total_steps
        self.statistics = statistics
        # Beside the weights: NCCL, over which DistributedDataParallel sends buffers, sends none on a CPU.
        device = next(online.parameters()).device
        self.register_buffer("step", torch.zeros((), dtype=torch.int64, device=device))
        # Python's copy of the buffer: reading a buffer on a GPU would make the host wait.
        self._step: int | None = 0
        self._freeze_statistics()

    @property
    def tau(self) -> float:
        """The decay rate of the next update."""
        return cosine_tau(self._known_step(), self.tau_base, self.total_steps)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """Return target projections [B,D], or whatever the network gives, without gradient."""
        return self.network(images)

    @torch.no_grad()
    def update(self, online: nn.Module) -> None:
        """Move towards `online` by one step of the average. Call once after each optimizer step."""
        targets: list[Tensor] = list(self.network.parameters())
        sources: list[Tensor] = list(online.parameters())
        torch._foreach_lerp_(targets, sources, 1 - self.tau)
        if self.statistics != "own":
            self._take_over_buffers(online)
        self._step = self._known_step() + 1
        self.step.fill_(self._step)

    def reset(self, online: nn.Module) -> None:
        """Copy `online`, parameters and buffers; the step stays."""
        self.network.load_state_dict(online.state_dict())

    def train(self, mode: bool = True) -> Self:
        """Set the mode, as of any module; batch norms that use running statistics stay in eval mode."""
        super().train(mode)
        self._freeze_statistics()
        return self

    def _freeze_statistics(self) -> None:
        if self.statistics == "own":
            return
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def _take_over_buffers(self, online: nn.Module) -> None:
        for target, source in zip(self.network.buffers(), online.buffers(), strict=True):
            if self.statistics == "average" and target.is_floating_point():
                target.lerp_(source, 1 - self.tau)
            else:
                target.copy_(source)

    def _known_step(self) -> int:
        if self._step is None:
            self._step = int(self.step)
        return self._step

    def _load_from_state_dict(self, *arguments: Any, **keywords: Any) -> None:
        super()._load_from_state_dict(*arguments, **keywords)
        self._step = None  # read the loaded buffer at the next use


def check_statistics(statistics: TargetStatistics, use_momentum: bool, normalization: Normalization) -> None:
    """Raise UserError where the choice of the target's statistics means nothing beside the other two."""
    if statistics == "own":
        return
    if not use_momentum:
        raise UserError(f"target_statistics is '{statistics}', but SimSiam has no target network")
    if normalization == "group":
        raise UserError(
            f"target_statistics is '{statistics}', but with group normalisation there are no statistics"
        )
