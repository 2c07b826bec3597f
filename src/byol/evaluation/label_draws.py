"""Draws of few labels, kept beside the results: who compares numbers must know which images they are of."""

import hashlib
import json
import re
from pathlib import Path

from torch import Tensor

from byol.data.folder import NAMES_ENCODED
from byol.data.splits import draw_labels
from byol.evaluation.task import Task
from byol.rundir import write_atomically


def drawn_labels(task: Task, amount: str | int, draw: int, seed: int, folder: Path | None) -> Tensor:
    """Return the indices into train of a draw, as `draw_labels` does, and write them to `folder`.

    The file DATA-AMOUNT-drawN-seedN.json says which images they are: by index, and by key, because
    indices depend on what else is in the train split. None for a folder writes nothing.

    Raises:
        UserError: the amount does not suit the data, or the file cannot be written.
    """
    drawn = draw_labels(task.labels, amount, draw, seed)
    if folder is not None:
        text = json.dumps(_description(task, amount, draw, seed, drawn)) + "\n"
        write_atomically(folder / f"{_name(task.data)}-{amount}-draw{draw}-seed{seed}.json", text)
    return drawn


def _description(task: Task, amount: str | int, draw: int, seed: int, drawn: Tensor) -> dict[str, object]:
    indices = drawn.tolist()
    return {
        "data": task.data,
        "labels": amount,
        "draw": draw,
        "seed": seed,
        "train_images": len(task.train),
        "indices": indices,
        "keys": [task.train.keys[index] for index in indices],
        "classes": task.labels[drawn].tolist(),
    }


def _name(data: str) -> str:
    """Return a file name for a name of data; of paths the last part, and a digest that tells them apart."""
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", data).strip("-")
    if plain == data:
        return data
    return f"{plain[-40:]}-{hashlib.sha256(data.encode(errors=NAMES_ENCODED)).hexdigest()[:8]}"
