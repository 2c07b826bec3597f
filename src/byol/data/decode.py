"""One encoded image in, one uint8 tensor out."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from byol.errors import UserError

_MODES = {1: "L", 3: "RGB"}


class UnreadableImage(UserError):  # noqa: N818 - it reads as what it is: the image that cannot be read
    """An image that cannot be decoded; the one error that `on_error="skip"` forgives."""


def unreadable(name: str, error: Exception) -> UnreadableImage:
    """Return the one-line error for image `name` that could not be read because of `error`."""
    return UnreadableImage(
        f"cannot read image '{name}': {_reason(error)}; "
        "repair or remove it (byol pretrain and embed leave such images out with --on-error skip)"
    )


def read_image(file: str | Path, channels: int = 3) -> Tensor:
    """Return an image file as `byol pretrain`, `evaluate` and `embed` read it: uint8 [C,H,W].

    Any of jpg, png, webp, bmp and tiff. EXIF orientation is applied, transparency is laid over white, 16
    bits are scaled to 8. `backbone.preprocess` takes what it returns.

    Args:
        file: its path.
        channels: 3 for RGB, 1 for grey.

    Raises:
        UserError: there is no such file, it cannot be decoded, or `channels` is neither 1 nor 3.
    """
    return decode(Path(file).expanduser(), channels, str(file))


def decode(source: bytes | Path | Image.Image, channels: int = 3, name: str = "image") -> Tensor:
    """Return an image as uint8 [C,H,W]: RGB, or one channel of grey (ITU-R 601).

    EXIF orientation is applied, transparency is laid over white, palettes are resolved, and 16-bit
    values are divided by 257, so that 65535 becomes 255. Modes "I" and "F" are read as 16-bit too,
    except that an "F" image within [0,1] is multiplied by 255. Of several frames the first is read.

    Args:
        source: The encoded bytes, a file, or an image that PIL opened.
        channels: 1 or 3.
        name: What to call the image in an error.

    Raises:
        UnreadableImage: the bytes are no image, are cut short, or exceed 16 bits.
        UserError: `channels` is neither 1 nor 3.
    """
    check_channels(channels)
    try:
        image = source if isinstance(source, Image.Image) else _opened(source)
        image.load()  # what numpy would swallow of its errors is raised here
        pixels = np.array(_converted(_upright(image), _MODES[channels]))
    # Broken files make PIL's decoders raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise unreadable(name, error) from error
    # The channels stay next to each other in memory: crops are resized twice as fast from that layout.
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)


def exif_orientation(source: bytes | Path, name: str = "image") -> int:
    """Return how `decode` turns an image: its EXIF orientation 2-8, or 1 where it stays as it is.

    Raises:
        UnreadableImage: as `decode`.
    """
    try:
        return _orientation(_opened(source))
    except Exception as error:  # as in `decode`
        raise unreadable(name, error) from error


def check_channels(channels: int) -> None:
    """Raise UserError unless encoded images can be read with this many channels."""
    if channels not in _MODES:
        raise UserError(
            f"image files become 1 or 3 channels, not {channels}: "
            "set --channels to 1 or 3, or pass the images as a uint8 tensor [N,C,H,W]"
        )


def _opened(source: bytes | Path) -> Image.Image:
    # Whole file first: PIL would keep the file open until the image is collected.
    return Image.open(BytesIO(source if isinstance(source, bytes) else source.read_bytes()))


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in range(2, 9) else 1


def _upright(image: Image.Image) -> Image.Image:
    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)  # which always copies


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode[0] in "IF":  # I, I;16 and its byte orders, F
        image = Image.fromarray(_eight_bit(np.asarray(image), image.mode))
    elif image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return image if image.mode == mode else image.convert(mode)


def _eight_bit(values: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 65535:
        raise ValueError(f"its values run from {low:g} to {high:g}, outside 16 bits (0 to 65535)")
    scale = 255.0 if mode == "F" and high <= 1 else 1 / 257
    return np.rint(values * scale).astype(np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    return " ".join(str(error).split()) or type(error).__name__
