"""BYOL: turn unlabelled images into a backbone. Public names load on first use, torch with them."""

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byol.augment.views import views as views
    from byol.bundle import load_backbone as load_backbone
    from byol.core.learner import BYOL as BYOL
    from byol.core.pixel_learner import PixelCL as PixelCL
    from byol.data.decode import read_image as read_image
    from byol.data.mock_dataset import MockDataset as MockDataset
    from byol.errors import UserError as UserError
    from byol.evaluation.classifier import load_classifier as load_classifier
    from byol.evaluation.embedding import embed as embed
    from byol.evaluation.run import evaluate as evaluate
    from byol.optim.lars import LARS as LARS
    from byol.reporting.demonstration import demo as demo
    from byol.training.byol_trainer import BYOLTrainer as BYOLTrainer
    from byol.training.epochs import train_byol as train_byol
    from byol.training.run import pretrain as pretrain

_HOMES = {
    "BYOL": "byol.core.learner",
    "BYOLTrainer": "byol.training.byol_trainer",
    "LARS": "byol.optim.lars",
    "MockDataset": "byol.data.mock_dataset",
    "PixelCL": "byol.core.pixel_learner",
    "UserError": "byol.errors",
    "demo": "byol.reporting.demonstration",
    "embed": "byol.evaluation.embedding",
    "evaluate": "byol.evaluation.run",
    "load_backbone": "byol.bundle",
    "load_classifier": "byol.evaluation.classifier",
    "pretrain": "byol.training.run",
    "read_image": "byol.data.decode",
    "train_byol": "byol.training.epochs",
    "views": "byol.augment.views",
}

__version__ = _version("byol")
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'byol' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
