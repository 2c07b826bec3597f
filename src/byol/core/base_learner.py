"""What the learners have in common: an online network, a predictor, and a target that follows the former."""

import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from byol.core.backbone import Backbone
from byol.core.dense_network import DenseNetwork
from byol.core.online_network import OnlineNetwork
from byol.core.processes import several_processes, synchronize_batch_norms
from byol.core.target import TargetNetwork
from byol.errors import UserError
from byol.types import StepOutput

log = logging.getLogger(__name__)
Augmentation = Callable[[Tensor], Tensor]


class Learner(nn.Module):
    """Parameters to train, and a moving average to keep; each learner adds what it compares, and how."""

    online: OnlineNetwork | DenseNetwork
    predictor: nn.Module
    target: TargetNetwork | None
    image_size: int
    takes_views = False
    """Whether two views are compared as `View`s, which tell where they come from, or as tensors."""
    _has_trained = False
    _synchronizes: bool | None = None

    def compare_in_turn(self, view1: Any, view2: Any, share: float = 1.0) -> StepOutput:
        """Return loss and projections of two views; part of the loss goes backward here (see `byol.BYOL`)."""
        raise NotImplementedError

    @property
    def backbone(self) -> Backbone:
        """The online backbone, from images to representations: what training is for."""
        return self.online.backbone

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of what the network takes."""
        return next(self.online.parameters()).dtype

    @property
    def tau(self) -> float | None:
        """The target's decay rate at the next update; None without a target."""
        return None if self.target is None else self.target.tau

    def update_moving_average(self) -> None:
        """Move the target one step towards the online network. Call after each optimizer step.

        SimSiam has no target: there the call does nothing.
        """
        if self.target is not None:
            self.target.update(self.online)

    def reset_moving_average(self) -> None:
        """Make the target a copy of the online network again, as it was at first; tau stays where it is."""
        if self.target is not None:
            self.target.reset(self.online)

    def online_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that the loss trains: what an optimizer needs."""
        yield from (parameter for _, parameter in self.named_online_parameters())

    def named_online_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield `online_parameters` with their names in this module."""
        for name, parameter in self.named_parameters():
            is_online = name.startswith(("online.", "predictor."))
            if is_online and parameter.requires_grad and name not in self.unreached:
                yield name, parameter

    def _refuse_copies(self) -> None:
        if getattr(self, "_is_replica", False):  # the word of DataParallel for its copies
            raise UserError(
                "DataParallel runs several copies of one learner at once: use DistributedDataParallel"
            )

    def _look_at_norms_once(self, batch: Tensor) -> None:
        """At the first training step, warn of batch norms that silently do what is seldom meant."""
        if self._has_trained or not self.training or torch.compiler.is_compiling():
            return
        self._has_trained = True
        norms = _batch_norms(self.backbone)
        if norms and not any(norm.training for norm in norms):
            warnings.warn(
                "all batch norms of the network are in eval mode: call learner.train() before training, "
                "unless they are to stay as they are",
                stacklevel=2,
            )
        norms = _batch_norms(self)  # the heads' too
        apart = norms and not any(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
        if apart and self._synchronizes is None and several_processes() and batch.is_cuda:
            warnings.warn(
                "batch statistics are those of each process alone: join the processes and put the network on "
                "its GPU before the learner is made, or say sync_batchnorm=False where that is meant",
                stacklevel=2,
            )

    def _check_views(self, view1: Tensor, view2: Tensor) -> None:
        self._look_at_norms_once(view1)
        if view1.shape != view2.shape:
            raise UserError(
                f"the views are {list(view1.shape)} and {list(view2.shape)}: both must be [B,C,S,S], of the "
                "same images and one size"
            )
        if self.training and len(view1) < 2 and self.backbone.normalization == "batch":
            raise ValueError("a batch of one image has no batch statistics: use at least two images")

    def _follow(self, net: nn.Module) -> None:
        """Put the heads where the network's weights are, in their precision."""
        like = next(net.parameters(), None)
        if like is not None:
            self.online.projector.to(like.device, like.dtype)
            self.predictor.to(like.device, like.dtype)

    def _synchronize_batchnorm(self, wanted: bool | None) -> None:
        self._synchronizes = wanted
        on_gpu = any(parameter.is_cuda for parameter in self.parameters())
        if wanted and not on_gpu:
            raise UserError(
                "sync_batchnorm needs the network on a GPU: torch's SyncBatchNorm takes no CPU tensors"
            )
        if wanted or (wanted is None and several_processes() and on_gpu):
            synchronize_batch_norms(self)

    def _leave_alone(self, unreached: Collection[str]) -> None:
        """Keep parameters of the network that the loss does not depend on (an unused `fc`) out of our way."""
        self.unreached = {f"online.backbone.net.{name}" for name in unreached}
        # DistributedDataParallel reads this name; it would otherwise wait for their gradients.
        self._ddp_params_and_buffers_to_ignore = sorted(self.unreached)
        if self.unreached:
            names = ", ".join(sorted(unreached))
            log.info("not trained, since the hidden layer does not depend on them: %s", names)


def _batch_norms(module: nn.Module) -> list[_BatchNorm]:
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]
