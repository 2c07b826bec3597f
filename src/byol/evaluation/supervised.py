"""One supervised fit: a backbone and a linear classifier, trained together on labelled images."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from byol.allocation import memory_kept
from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone, lay_out
from byol.data.images import Subset
from byol.evaluation.augmented import RandomCrops
from byol.evaluation.classifier import Classifier
from byol.evaluation.features import extract
from byol.evaluation.linear import BATCH_SIZE, Batches, batch_size_for
from byol.optim.schedules import warmup_cosine
from byol.randomness import DROPOUT, derived_seed, epoch_order
from byol.types import ImageSet

SMALLEST_BATCH = 16


@dataclass(frozen=True)
class Setting:
    """What is chosen on held-out images."""

    lr: float
    """Base rate per 256 images: the rate is lr * batch / 256."""
    epochs: int


@dataclass(frozen=True)
class Supervision:
    """Labelled images, a network, and what else is the same in every fit."""

    backbone: Backbone
    """With its `preprocess`; copied for each fit, it stays as it is."""
    images: ImageSet
    num_classes: int
    freeze: Sequence[str] = ()
    """Sub-modules of the network that stay as they are."""
    seed: int = 0
    """Of order, crops and dropout."""
    device: torch.device | str = "cpu"
    num_workers: int = 0
    """Processes that decode images which are not in memory."""
    largest_batch: int = BATCH_SIZE
    """Images in a batch at most, where memory does not hold as many as the paper's."""

    def fitted(self, indices: Tensor, setting: Setting) -> Classifier:
        """Train a copy of the network and a linear classifier on the images at `indices`.

        Random crop and flip, SGD with Nesterov momentum 0.9, no weight decay, cosine schedule without
        warm-up (BYOL, appendix C.2); batch norms in train mode, with `batch_norm_momentum`. A fit whose
        loss is no longer finite ends early: neither are its weights then.
        """
        crops = RandomCrops(
            Subset(self.images, indices),
            self._preprocess,
            seed=self.seed,
            device=self.device,
            num_workers=self.num_workers,
        )
        classifier = Classifier(copy.deepcopy(self.backbone), self.num_classes, self.freeze).to(self.device)
        _train(classifier, crops, setting, self.largest_batch, self.seed)
        return classifier.eval()

    def scores(self, classifier: Classifier, images: ImageSet) -> Tensor:
        """Return logits [M,K] of whole images, in eval mode."""
        found = extract(
            classifier, self._preprocess, images, device=self.device, num_workers=self.num_workers
        )
        return found.vectors

    @property
    def _preprocess(self) -> Preprocess:
        assert self.backbone.preprocess is not None
        return self.backbone.preprocess


def steps_per_epoch(count: int, largest_batch: int = BATCH_SIZE) -> int:
    """Return how many steps an epoch has: batches of the paper's 1024, or of a sixteenth of a small set.

    Batches have 16 images at least, or there would be little to take batch statistics of; `largest_batch`
    may ask for fewer.
    """
    return math.ceil(count / min(largest_batch, max(SMALLEST_BATCH, batch_size_for(count))))


def batch_size(count: int, largest_batch: int = BATCH_SIZE) -> int:
    """Return the number of images in the larger batches of an epoch."""
    return math.ceil(count / steps_per_epoch(count, largest_batch))


def batch_norm_momentum(steps: int) -> float:
    """Return the weight of a batch's statistics in the running ones, with `steps` in an epoch.

    The paper's decay is max(1 - 10 / s, 0.9) (appendix D); PyTorch's momentum is 1 - decay.
    """
    return min(10 / steps, 0.1)


def even_batches(count: int, seed: int, epoch: int, largest_batch: int = BATCH_SIZE) -> tuple[Tensor, ...]:
    """Return an epoch's batches of indices: each of `count` once, in batches of one size or nearly so.

    Batch norm would make little of the few images that dividing by the batch size leaves over.
    """
    return epoch_order(count, seed, epoch).tensor_split(steps_per_epoch(count, largest_batch))


def _train(
    classifier: Classifier, crops: RandomCrops, setting: Setting, largest_batch: int, seed: int
) -> None:
    count = len(crops.labels)
    steps = steps_per_epoch(count, largest_batch)
    set_batch_norm_momentum(classifier, batch_norm_momentum(steps))
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0, momentum=0.9, nesterov=True)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return crops(epoch, even_batches(count, seed, epoch, largest_batch))

    peak = setting.lr * batch_size(count, largest_batch) / 256
    descend(classifier, optimizer, batches, F.cross_entropy, peak, setting.epochs, steps, seed)


@memory_kept()
def descend(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    peak: float,
    epochs: int,
    steps: int,
    seed: int,
) -> None:
    """Train a network along a cosine from the first step to the last; end early where the loss is not finite.

    PyTorch's own generators are afterwards as before.

    Args:
        network: put into train mode, and laid out by `lay_out`.
        optimizer: of one group; its rate is set before every step.
        batches: inputs and what they should give.
        loss_of: what the network gives, and what it should.
        peak: the first learning rate.
        epochs: how many.
        steps: in an epoch.
        seed: of dropout and the like.
    """
    lay_out(network)
    network.train()
    device, step = next(network.parameters()).device, 0
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for epoch in range(epochs):
            for inputs, wanted in batches(epoch):
                torch.manual_seed(derived_seed(seed, DROPOUT, step))
                optimizer.param_groups[0]["lr"] = peak * warmup_cosine(step, 0, epochs * steps)
                loss = loss_of(network(inputs), wanted)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
            if not loss.isfinite():
                break


def set_batch_norm_momentum(network: nn.Module, momentum: float) -> None:
    """Set the weight that a batch's statistics have in the running ones."""
    for part in network.modules():
        if isinstance(part, _BatchNorm):
            part.momentum = momentum
