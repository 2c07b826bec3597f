"""One encoded image in, one uint8 tensor out."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from byol.errors import UserError, one_line

_MODES = {1: "L", 3: "RGB"}


class UnreadableImage(UserError):  # noqa: N818 - it reads as what it is: the image that cannot be read
    """An image that cannot be decoded; the one error that `on_error="skip"` forgives."""


def unreadable(name: str, error: Exception) -> UnreadableImage:
    """Return the one-line error for image `name` that could not be read because of `error`."""
    return UnreadableImage(
        f"cannot read image '{name}': {_reason(error)}; "
        "repair or replace it, or remove it before a run starts "
        "(byol pretrain and embed leave such images out with --on-error skip)"
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
    return EncodedPicture(source, channels, name).pixels()


class EncodedPicture:
    """An image as `decode` takes it, of which only the header has been read.

    A JPEG stores blocks of 8x8 pixels as frequencies: without the highest ones, half, a quarter or an eighth
    of its side comes out, each pixel about the mean of those that it stands for, in half of the time or less.
    Other formats are decoded at once.
    """

    def __init__(self, source: bytes | Path | Image.Image, channels: int = 3, name: str = "image") -> None:
        """Read the header. Raises as `decode`, which see for the arguments."""
        check_channels(channels)
        self.channels = channels
        self.name = name
        with _named(name):
            self._image = source if isinstance(source, Image.Image) else _opened(source)
            is_jpeg = isinstance(self._image, JpegImageFile)
            self._decoded = None if is_jpeg else _pixels(self._image, channels)
            self.height, self.width = self._sides()

    def _sides(self) -> tuple[int, int]:
        if self._decoded is not None:
            return self._decoded.shape[1], self._decoded.shape[2]
        width, height = self._image.size
        return (width, height) if _orientation(self._image) >= 5 else (height, width)  # it lies on its side

    def reduction(self, side: int, wanted: int) -> int:
        """Return 8, 4, 2 or 1: what leaves `side` pixels twice as many as `wanted`. Not a JPEG: 1.

        Resized to `wanted`, the result differs from that of the whole image by about what rounding to
        bytes does (docs/log.md).
        """
        divisors = (8, 4, 2) if self._decoded is None else ()
        return next((divisor for divisor in divisors if side >= 2 * divisor * wanted), 1)

    def pixels(self, reduction: int = 1) -> Tensor:
        """Return the image as `decode` does, a JPEG at 1/`reduction` of its sides, rounded up; once only."""
        if self._decoded is not None:
            return self._decoded
        with _named(self.name):
            if reduction > 1:
                width, height = self._image.size
                # PIL takes the largest of its divisors that leaves at least so many pixels.
                self._image.draft(None, (max(1, width // reduction), max(1, height // reduction)))
            return _pixels(self._image, self.channels)


def exif_orientation(source: bytes | Path, name: str = "image") -> int:
    """Return how `decode` turns an image: its EXIF orientation 2-8, or 1 where it stays as it is.

    Raises:
        UnreadableImage: as `decode`.
    """
    with _named(name):
        return _orientation(_opened(source))


def check_channels(channels: int) -> None:
    """Raise UserError unless encoded images can be read with this many channels."""
    if channels not in _MODES:
        raise UserError(
            f"image files become 1 or 3 channels, not {channels}: "
            "set --channels to 1 or 3, or pass the images as a uint8 tensor [N,C,H,W]"
        )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn whatever a broken file makes PIL raise into an error that names the image."""
    try:
        yield
    # Nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise unreadable(name, error) from error


def _pixels(image: Image.Image, channels: int) -> Tensor:
    image.load()  # what numpy would swallow of its errors is raised here
    pixels = np.array(_converted(_upright(image), _MODES[channels]))
    # The channels stay next to each other in memory: crops are resized twice as fast from that layout.
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)


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
        values = np.asarray(image)
        if "transparency" in image.info:  # one value of a PNG with 16 bits
            values = np.where(values == image.info["transparency"], 65535, values)
        image = Image.fromarray(_eight_bit(values, image.mode))
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
    return one_line(error)
