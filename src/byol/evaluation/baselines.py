"""What a trained backbone has to beat: the same network before training, and the pixels."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone, evaluating
from byol.errors import UserError
from byol.evaluation.batches import preprocessed_batches
from byol.evaluation.features import extract
from byol.randomness import derived_generator
from byol.types import ImageSet
from byol.weights import load_exactly, read_weights

LARGEST_PIXEL_SIDE = 32
_BATCH = 256


def random_init(
    backbone: Backbone,
    initial_weights: Path,
    train: ImageSet,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> Backbone:
    """Return the network as it was at step 0, with batch-norm statistics of the train images.

    Without the latter, random features would be judged with statistics that no one measured.

    Args:
        backbone: the trained network; it is copied and stays as it is.
        initial_weights: what training wrote at step 0, the state of `backbone.net`.
        train: the images of the statistics; their labels are not read.
        device: where to compute.
        num_workers: processes that decode images which are not in memory.

    Raises:
        UserError: there are no such weights, or they do not fit.
    """
    if not initial_weights.is_file():
        raise UserError(f"random-init needs the weights of step 0, but there is no {initial_weights}")
    initial = copy.deepcopy(backbone)
    load_exactly(initial.net, read_weights(initial_weights), str(initial_weights))
    assert backbone.preprocess is not None
    measure_batch_norm(initial, backbone.preprocess, train, device=device, num_workers=num_workers)
    return initial.eval()


def measure_batch_norm(
    backbone: nn.Module,
    preprocess: Preprocess,
    image_set: ImageSet,
    *,
    batch_size: int = _BATCH,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> None:
    """Set running statistics to the average over the batches of one pass, in a random fixed order.

    Only batch norms are in train mode, so that nothing else moves. A last batch that is smaller is
    left out: the average would give its images more weight.
    """
    backbone.to(device)
    order = torch.randperm(len(image_set), generator=derived_generator(0))
    if len(order) > batch_size:
        order = order[: len(order) // batch_size * batch_size]
    with evaluating(backbone), _averaging(backbone) as found, torch.no_grad():
        if not found:
            return
        for batch in preprocessed_batches(
            image_set, preprocess, order, batch_size=batch_size, device=device, num_workers=num_workers
        ):
            backbone(batch)


@contextmanager
def _averaging(backbone: nn.Module) -> Iterator[bool]:
    """Let batch norms average over all batches to come; yield whether there are any."""
    norms = [part for part in backbone.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    try:
        yield bool(norms)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class CentredPixels(nn.Module):
    """Images [B,C,S,S] flattened [B,C*S*S] minus a mean."""

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, images: Tensor) -> Tensor:
        """Return vectors [B,C*S*S]."""
        return images.flatten(1) - self.mean


def centred_pixels(train: ImageSet, num_workers: int = 0) -> tuple[CentredPixels, Preprocess]:
    """Return a "network" whose vectors are pixels minus the train mean, and its preprocessing.

    Images larger than 32 pixels are reduced to that: more pixels say little more to these protocols.
    """
    size = min(LARGEST_PIXEL_SIDE, *train[0].shape[1:])
    preprocess = pixel_preprocess(train, size)
    pixels = extract(nn.Flatten(), preprocess, train, num_workers=num_workers)
    return CentredPixels(pixels.vectors.mean(dim=0)), preprocess


def pixel_preprocess(image_set: ImageSet, size: int) -> Preprocess:
    """Return the preprocessing that leaves pixels in [0,1] at `size` x `size`."""
    channels = image_set[0].shape[0]
    return Preprocess(size, mean=(0.0,) * channels, std=(1.0,) * channels)
