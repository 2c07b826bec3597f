"""From what the user writes after `--data` to an opened source."""

from os import PathLike, fspath
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from byol.data.channels import with_channels
from byol.data.dataset_images import DatasetImages, natural_channels
from byol.data.decode import check_channels
from byol.data.digits import open_digits
from byol.data.folder import open_folder
from byol.data.hf import open_hf
from byol.data.images import TensorImages
from byol.data.opened import Source, without_unreadable
from byol.data.torchvision_sets import EMNIST_SPLITS, TORCHVISION_SETS, open_torchvision
from byol.errors import UserError, closest, require_known

__all__ = ["NAMES", "Source", "check_named", "open_source", "resolved_spec"]

NAMES = ("digits", *TORCHVISION_SETS)
_SCHEMES = ("folder", "hf")
_ON_ERROR = ("stop", "skip")


def open_source(
    spec: str | PathLike[str] | Dataset[Any] | Tensor,
    *,
    channels: int | None = None,
    data_dir: str = "./datasets",
    on_error: str = "stop",
) -> Source:
    """Open images by name, by path, from a torch Dataset or from a uint8 tensor [N,C,H,W].

    Args:
        spec: A name of `NAMES`; `folder:PATH`; `hf:NAME_OR_PATH`; an existing path, which means
            `folder:`; a Dataset (see `DatasetImages`); a tensor. A name wins over a path of that name.
        channels: 1 or 3; None keeps what the data have (files: 3).
        data_dir: Where named sets and Hub datasets are downloaded.
        on_error: "stop" raises at the first unreadable image when it is read; "skip" reads everything
            once now and leaves such images out of train and unlabeled.

    Raises:
        UserError: the data are unknown, missing, or not what they should be.
    """
    require_known("--on-error", on_error, _ON_ERROR)
    source = _opened(spec, channels, data_dir)
    if on_error == "stop" or isinstance(source.train, TensorImages):
        return source
    # A user's dataset need not bear being read from several threads.
    return without_unreadable(source, threads=1 if isinstance(source.train, DatasetImages) else None)


def resolved_spec(spec: str) -> str:
    """Return `spec` with a local path made absolute: it means the same from any folder.

    Names and Hub names come back unchanged, and so does anything unknown.
    """
    scheme, _, rest = spec.partition(":")
    if spec in NAMES or (scheme in _SCHEMES and not rest):
        return spec
    if scheme == "folder" or (scheme == "hf" and Path(rest).expanduser().exists()):
        return f"{scheme}:{_absolute(rest)}"
    if scheme != "hf" and Path(spec).expanduser().exists():
        return f"folder:{_absolute(spec)}"
    return spec


def check_named(stored: str) -> None:
    """Check that the data of a run's settings can be opened by their name.

    Raises:
        UserError: they were an object: a Dataset, of which the class is stored, or a tensor.
    """
    if stored not in NAMES and ":" not in stored:
        raise UserError(
            f"the run's data were an object in Python, {stored}: pass it as `data` there, or, to evaluate or "
            "embed, name others with --data"
        )


def _opened(spec: str | PathLike[str] | Dataset[Any] | Tensor, channels: int | None, data_dir: str) -> Source:
    if isinstance(spec, Tensor):
        return _open_tensor(spec, channels)
    if not isinstance(spec, (str, PathLike)):
        images = DatasetImages(spec, channels or natural_channels(spec))
        return Source(type(spec).__name__, images, channels=images.channels)
    return _open_text(fspath(spec), channels, data_dir)


def _absolute(path: str) -> Path:
    return Path(path).expanduser().resolve()


def _open_text(spec: str, channels: int | None, data_dir: str) -> Source:
    scheme, _, rest = spec.partition(":")
    if spec in NAMES:
        if channels is not None:
            check_channels(channels)
        return open_digits(channels or 1) if spec == "digits" else open_torchvision(spec, channels, data_dir)
    if scheme not in _SCHEMES:
        if not spec or not Path(spec).expanduser().exists():
            raise _unknown(spec)
        scheme, rest = "folder", spec
    if not rest:
        raise UserError(f"--data {scheme}: names nothing; write {scheme}:PATH")
    files = 3 if channels is None else channels
    return open_hf(rest, files, data_dir) if scheme == "hf" else open_folder(rest, files)


def _open_tensor(images: Tensor, channels: int | None) -> Source:
    image_set = TensorImages(images)  # checks type and shape before anything is converted
    if images.shape[1] > 8 and images.shape[3] in (1, 3, 4):
        shape = list(images.shape)
        raise UserError(f"the tensor {shape} looks like [N,H,W,C]: permute(0, 3, 1, 2) makes it [N,C,H,W]")
    if len(images) == 0:
        raise UserError("the tensor holds no images")
    if channels is not None:
        image_set = TensorImages(with_channels(images, channels))
    return Source("tensor", image_set, channels=image_set.images.shape[1])


def _unknown(spec: str) -> UserError:
    scheme, separator, rest = spec.partition(":")
    if spec == "emnist" or spec.startswith("emnist/"):
        six = [f"emnist/{variant}" for variant in EMNIST_SPLITS]
        return UserError(f"EMNIST has six sets, not '{spec}'.{closest(spec, six)} Known: {', '.join(six)}.")
    near = closest(spec, NAMES)
    if separator:
        near = closest(f"{scheme}:{rest}", [f"folder:{rest}", f"hf:{rest}"])
    return UserError(
        f"unknown data '{spec}', and no such path exists.{near} "
        f"Known: {', '.join(NAMES)}, folder:PATH, hf:NAME_OR_PATH, or an existing folder."
    )
