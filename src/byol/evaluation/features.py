"""Features: the vectors of a whole image set from a frozen network, extracted once and kept."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byol.allocation import memory_kept
from byol.augment.evaluation import Preprocess
from byol.core.backbone import evaluating
from byol.data.folder import NAMES_ENCODED, file_stamps
from byol.data.images import resident, rows_in_memory
from byol.evaluation.batches import preprocessed_batches
from byol.rundir import written_whole
from byol.types import Features, ImageSet
from byol.weights import write_safetensors

_VECTORS = "byol features 2"
"""Part of every fingerprint: raise it when the same inputs come to mean other vectors."""
_IMAGES = "byol features 1"
"""Part of every `image_digest`: saved networks hold some, so it stays."""
_SAMPLED_IMAGES = 256
"""At least, of a larger set; fewer than twice as many."""
_BLOCK = 256
"""Images whose bytes or stamps are taken together: vectors kept under another number would not be found."""


@memory_kept()
def extract(
    backbone: nn.Module,
    preprocess: Preprocess,
    image_set: ImageSet,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
    shown_as: str | None = None,
) -> Features:
    """Return the vectors [N,D] of every image of a set, in its order.

    The network runs in eval mode and without gradients; its state stays bit-identical and its
    modes are as before. It is moved to `device`. A terminal shows how far it is where `shown_as` names it.

    Raises:
        UserError: an image cannot be read.
    """
    backbone.to(device)
    order = torch.arange(len(image_set))
    batches = preprocessed_batches(
        image_set, preprocess, order, batch_size=batch_size, device=device, num_workers=num_workers
    )
    vectors, done = torch.empty(0, 0, dtype=torch.float32), 0
    with evaluating(backbone), torch.no_grad(), _bar(shown_as, len(image_set)) as advance:
        for batch in batches:
            found = backbone(batch)  # [B,D]
            if done == 0:
                # At once: vectors of each batch would lie where the next one's maps could have been.
                vectors = vectors.new_empty(len(image_set), found.shape[1])  # [N,D]
            vectors[done : done + len(found)] = found
            done += len(found)
            advance(len(found))
    return Features(vectors, image_set.labels, image_set.keys)


@contextmanager
def _bar(name: str | None, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while something lasts; yield what moves it on."""
    if name is None or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    # No thread and nothing redirected: decoding processes are forked meanwhile.
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.update(task, advance=count, refresh=True)


def kept(
    folder: Path | None,
    backbone: nn.Module,
    preprocess: Preprocess,
    image_set: ImageSet,
    data: str,
    split: str,
    *,
    device: torch.device,
    num_workers: int,
    shown_as: str,
) -> Features:
    """Return what `extract` does, from the cache in `folder` where it is there; None: there is no cache.

    Raises:
        UserError: an image cannot be read.
    """

    def compute() -> Features:
        return extract(
            backbone, preprocess, image_set, device=device, num_workers=num_workers, shown_as=shown_as
        )

    if folder is None:
        return compute()
    return cached(folder, fingerprint(backbone, preprocess, image_set, data, split), image_set, compute)


def cached(folder: Path, key: str, image_set: ImageSet, compute: Callable[[], Features]) -> Features:
    """Return features kept under `key`, or compute and keep them.

    Only vectors are kept: labels and keys always come from the image set. A file that cannot be
    read, or holds another number of vectors, is computed again.

    Args:
        folder: of the cache.
        key: a `fingerprint` of everything that the vectors depend on.
        image_set: whose vectors they are.
        compute: what to do where nothing is kept.
    """
    file = folder / f"{key}.safetensors"
    vectors = _read(file, len(image_set))
    if vectors is not None:
        return Features(vectors, image_set.labels, image_set.keys)
    features = compute()
    _write(file, features.vectors)
    return features


def fingerprint(
    backbone: nn.Module, preprocess: Preprocess, image_set: ImageSet, data: str, split: str
) -> str:
    """Return a SHA-256 of all that vectors depend on, in hexadecimal.

    It covers every tensor of the network's state, the network's structure, chosen layer and precision, the
    preprocessing, the names of data and split, every key, and the images: all bytes where they are tensors
    or `resident` takes them, else size and time of change of their files; of what lies in no files of its
    own, such as Parquet, 256 to 511 images spread evenly, of fewer all.
    """
    digest = _begun(_VECTORS, backbone, preprocess, image_set, data, split)
    if not (_add_all(digest, image_set) or _add_stamps(digest, image_set)):
        _add_sample(digest, image_set)
    return digest.hexdigest()


def image_digest(image_set: ImageSet, preprocess: Preprocess) -> str:
    """Return a SHA-256 of images and preprocessing alone, whatever the data are called and where they lie:
    all bytes where `resident` takes them, else 256 to 511 of the images; every key."""
    digest = _begun(_IMAGES, nn.Identity(), preprocess, image_set, "", "")
    if not _add_all(digest, image_set):
        _add_sample(digest, image_set)
    return digest.hexdigest()


def _begun(
    version: str, backbone: nn.Module, preprocess: Preprocess, image_set: ImageSet, data: str, split: str
) -> "hashlib._Hash":
    digest = hashlib.sha256()
    layer = getattr(backbone, "hidden_layer", None)
    _add_text(digest, version, str(backbone), repr(layer), repr(asdict(preprocess)), data, split)
    if (precision := getattr(backbone, "precision", "fp32")) != "fp32":
        _add_text(digest, precision)
    for name, tensor in backbone.state_dict().items():
        _add_tensor(digest, name, tensor)
    _add_text(digest, str(len(image_set)), *image_set.keys)
    return digest


def _add_all(digest: Any, image_set: ImageSet) -> bool:
    """Add all images where they fit into memory; say whether they do."""
    images = resident(image_set)
    if images is not None:
        _add_tensor(digest, "images", images)
    return images is not None


def _add_stamps(digest: Any, image_set: ImageSet) -> bool:
    """Add all bytes of tensors, of files their stamps; say whether the images are either."""
    for rows in torch.arange(len(image_set)).split(_BLOCK):
        images = rows_in_memory(image_set, rows)
        if images is not None:
            _add_tensor(digest, "images", images)
        elif stamps := file_stamps(image_set, rows):
            _add_text(digest, *stamps)
        else:
            return False
    return True


def _add_sample(digest: Any, image_set: ImageSet) -> None:
    step = max(1, len(image_set) // _SAMPLED_IMAGES)
    for index in range(0, len(image_set), step):
        _add_tensor(digest, str(index), image_set[index])


def _add_text(digest: Any, *words: str) -> None:
    for word in words:
        # The length keeps "ab", "c" and "a", "bc" apart.
        digest.update(f"{len(word)}:{word}".encode(errors=NAMES_ENCODED))


def _add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    _add_text(digest, name, str(tensor.dtype), str(tuple(tensor.shape)))
    data = tensor.detach().cpu().contiguous()
    digest.update(data.reshape(-1).view(torch.uint8).numpy().data)


def _read(file: Path, count: int) -> Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        vectors = load_file(file)["vectors"]
    except (OSError, KeyError, SafetensorError):
        return None
    return vectors if len(vectors) == count else None


def _write(file: Path, vectors: Tensor) -> None:
    with written_whole(file) as temporary:
        write_safetensors(temporary, {"vectors": vectors.contiguous()})
