"""A network with its classifier, as fine-tuning makes it, and the folder that keeps it.

The folder is the bundle of the fine-tuned backbone with two files more: `classifier.safetensors` holds
weight [K,D] and bias [K], `classifier.json` the classes and what was learned from.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from byol.augment.evaluation import Preprocess
from byol.bundle import load_backbone, save_bundle
from byol.core.backbone import Backbone, find_layer, lay_out
from byol.errors import UserError
from byol.rundir import write_atomically
from byol.weights import load_exactly, read_weights, save_weights

WEIGHTS, DESCRIPTION = "classifier.safetensors", "classifier.json"


@dataclass(frozen=True)
class Provenance:
    """What a classifier learned from, and on what it was scored then."""

    classes: tuple[str, ...]
    """Names in the order of the logits."""
    data: str
    """Its name; of a folder the absolute path."""
    labels: str | int
    """"all", a number per class, or a share such as "1%"."""
    draw: int | None
    train_images: int
    """Of the split that the labels are of."""
    split: str
    """What was scored: test or holdout."""
    scored_images: int
    scored_digest: str
    """A fingerprint of the scored images."""
    settings: dict[str, Any]
    """Rate, epochs, ...: as in results.json."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild from `asdict`'s result, as read from JSON."""
        return cls(**{**values, "classes": tuple(values["classes"])})


class Classifier(nn.Module):
    """A backbone with a linear classifier that starts at zero.

    Args:
        backbone: with its `preprocess`; a part of this from now on.
        num_classes: K.
        freeze: names of sub-modules of the network that stay as they are: no gradients, eval mode.

    Attributes:
        provenance: what a loaded classifier learned from; None otherwise.

    Raises:
        UserError: the network has no sub-module of such a name.
    """

    def __init__(self, backbone: Backbone, num_classes: int, freeze: Sequence[str] = ()) -> None:
        super().__init__()
        self.backbone = backbone
        # Not nn.Linear(...): its random weights would be drawn from the global generator, for nothing.
        self.head = nn.utils.skip_init(nn.Linear, backbone.num_features, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.frozen = [find_layer(self.backbone.net, name).requires_grad_(False) for name in freeze]
        self.provenance: Provenance | None = None

    @property
    def preprocess(self) -> Preprocess:
        """What makes its input of uint8 images."""
        assert self.backbone.preprocess is not None
        return self.backbone.preprocess

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits; numbers where it is not known what it learned from."""
        return self.provenance.classes if self.provenance else tuple(map(str, range(self.head.out_features)))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B,K] of images [B,C,S,S]."""
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def train(self, mode: bool = True) -> "Classifier":
        """Set the mode of everything but what is frozen, which stays in eval mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self


def save_classifier(
    folder: Path, classifier: Classifier, provenance: Provenance, origin: dict[str, Any]
) -> None:
    """Write a network with its classifier so that `load_classifier` gives it back bit for bit.

    Args:
        folder: must not exist; it appears when it is complete.
        classifier: the network.
        provenance: what it learned from.
        origin: of the backbone, as for `save_bundle`.

    Raises:
        UserError: the folder exists, or the disk is full or not writable.
    """
    refuse_existing(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        save_bundle(temporary, classifier.backbone, origin)
        save_weights(classifier.head, temporary / WEIGHTS)
        write_atomically(temporary / DESCRIPTION, json.dumps(asdict(provenance), indent=2) + "\n")
        temporary.rename(folder)
    except OSError as error:
        raise UserError(f"cannot save {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def network_name(features: str, labels: str | int, draw: int | None) -> str:
    """Return the name of a fine-tuned network's folder: byol-all, random-init-10%-draw2."""
    return f"{features}-{labels}" + ("" if draw is None else f"-draw{draw}")


def refuse_existing(folder: Path) -> None:
    """Raise UserError where a network would take the place of something."""
    if folder.exists():
        raise UserError(f"'{folder}' exists: move it elsewhere or remove it, networks are never replaced")


def has_classifier(path: str | Path) -> bool:
    """Say whether a folder is one of `save_classifier`'s."""
    return (Path(path) / WEIGHTS).is_file()


def load_classifier(folder: str | Path, net: nn.Module | None = None) -> Classifier:
    """Load a fine-tuned network with its classifier in eval mode.

    Args:
        folder: as `byol evaluate --protocol finetune --save-networks` writes it, such as
            RUN/networks/byol-all.
        net: an untrained copy of the network; needed where it was the user's own. It gets the weights.

    Returns:
        A module from images [B,C,S,S] to logits [B,K], with `.classes` (K names), `.preprocess`, which
        makes its input of uint8 images, `.backbone`, and `.provenance`: what it learned from.

    Raises:
        UserError: there is no classifier, `net` is missing, or the weights do not fit it exactly.
    """
    path = Path(folder)
    if not has_classifier(path):
        reason = f"it has no {WEIGHTS}" if path.is_dir() else "no such folder"
        raise UserError(
            f"'{folder}' is no network with a classifier: {reason} "
            "(byol evaluate RUN --protocol finetune --save-networks makes some)"
        )
    provenance, state = _provenance(path / DESCRIPTION), read_weights(path / WEIGHTS)
    classifier = Classifier(load_backbone(path, net), len(state["bias"]) if "bias" in state else 0)
    load_exactly(classifier.head, state, str(path / WEIGHTS))
    classifier.provenance = provenance
    classifier.backbone.precision = provenance.settings.get("precision", "fp32")
    # As it was fitted: another layout rounds otherwise.
    lay_out(classifier)
    return classifier.eval()


def _provenance(file: Path) -> Provenance:
    try:
        return Provenance.from_dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} is missing or damaged: it does not describe a classifier of byol") from error
