"""The bundle: a trained backbone as tensors and JSON, with the preprocessing that belongs to it.

`model.safetensors` holds the weights, `config.json` how to build the network, its input and its
origin. A folder that has both is a bundle; a run directory keeps its own under `model/`.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.core.named_backbone import build_backbone
from byol.errors import UserError
from byol.rundir import write_atomically
from byol.weights import load_exactly, read_weights, save_weights

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_bundle(folder: Path, backbone: Backbone, origin: dict[str, Any]) -> None:
    """Write a backbone so that `load_backbone` gives it back bit for bit; replaces an older bundle.

    Args:
        folder: made if it is missing.
        backbone: with its `preprocess`.
        origin: plain values to keep with it: method, data, epoch, seed.
    """
    assert backbone.preprocess is not None
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": backbone.architecture,
        "hidden_layer": backbone.hidden_layer,
        "feature_layer": backbone.feature_layer,
        "image_size": backbone.image_size,
        "channels": backbone.channels,
        "normalization": backbone.normalization,
        "num_features": backbone.num_features,
        "preprocess": asdict(backbone.preprocess),
        "origin": origin,
    }
    save_weights(backbone.net, folder / WEIGHTS)
    write_atomically(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def load_backbone(run_or_bundle: str | Path, net: nn.Module | None = None) -> Backbone:
    """Load a trained backbone in eval mode.

    Args:
        run_or_bundle: a run directory or a bundle folder.
        net: an untrained copy of the network; needed where the backbone was the user's own module.
            Where that was trained without batch statistics, the copy is changed to have none either.

    Returns:
        A module from images [B,C,S,S] to vectors [B,D], with `.num_features` = D and `.preprocess`,
        which makes its input of uint8 images.

    Raises:
        UserError: there is no bundle, `net` is missing, or the weights do not fit it exactly.
    """
    folder = bundle_folder(run_or_bundle)
    config = _read_config(folder / CONFIG)
    backbone = _build(config, net, folder)
    load_exactly(backbone.net, read_weights(folder / WEIGHTS), str(folder / WEIGHTS))
    backbone.preprocess = Preprocess.from_dict(config["preprocess"])
    backbone.origin = config["origin"]
    return backbone.eval()


def bundle_folder(run_or_bundle: str | Path) -> Path:
    """Return the folder that holds the bundle of a run directory or is one.

    Raises:
        UserError: neither is the case.
    """
    path = Path(run_or_bundle)
    for folder in (path, path / "model"):
        if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file():
            return folder
    reason = f"no {WEIGHTS} and {CONFIG} there or in its model/" if path.exists() else "no such folder"
    raise UserError(f"'{path}' is neither a run directory nor a bundle: {reason}")


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} cannot be read as JSON: {error}") from error
    # Other tools' models consist of two files of these very names.
    names = ("architecture", "hidden_layer", "image_size", "channels", "preprocess", "origin")
    missing = [name for name in names if name not in config]
    if missing:
        raise UserError(f"{file} does not describe a bundle of byol: it lacks {', '.join(missing)}")
    return config


def _build(config: dict[str, Any], net: nn.Module | None, folder: Path) -> Backbone:
    if net is not None:
        # Older bundles do not say.
        normalization = config.get("normalization", "batch")
        return Backbone(
            net,
            config["image_size"],
            config["hidden_layer"],
            config["channels"],
            normalization=normalization,
            feature_layer=config.get("feature_layer"),
        )
    if config["architecture"] is None:
        raise UserError(
            f"{folder} holds a network of your own: pass an untrained copy of it as `net` in Python"
        )
    backbone = build_backbone(**config["architecture"])
    backbone.feature_layer = config.get("feature_layer")
    return backbone
