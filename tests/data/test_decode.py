"""Decoding against PIL's own conversions, numpy and closed forms."""

import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from byol.data.channels import with_channels
from byol.data.decode import UnreadableImage, decode, read_image
from byol.data.folder import open_folder
from byol.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP = np.array([[0, 128, 129, 257, 32767], [32768, 65406, 65407, 65534, 65535]], dtype=np.uint16)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chw(pixels):
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_come_back_exactly(kind, options, tmp_path):
    data = encoded(Image.fromarray(RGB), kind, **options)
    image = decode(data)
    assert image.dtype == torch.uint8
    assert image.permute(1, 2, 0).is_contiguous()  # channels last: the layout that is resized fastest
    assert torch.equal(image, chw(RGB))
    path = tmp_path / "image.bin"
    path.write_bytes(data)
    assert torch.equal(decode(path), image)


def test_jpeg_equals_pil():
    data = encoded(Image.fromarray(RGB), "JPEG")
    assert torch.equal(decode(data), chw(Image.open(io.BytesIO(data))))


def test_grey_is_repeated_for_three_channels_and_colour_weighed_for_one():
    assert torch.equal(decode(encoded(Image.fromarray(GREY))), torch.from_numpy(GREY).expand(3, 5, 7))
    assert torch.equal(decode(encoded(Image.fromarray(GREY)), 1), torch.from_numpy(GREY)[None])
    weighed = RGB.astype(float) @ [0.299, 0.587, 0.114]
    one = decode(encoded(Image.fromarray(RGB)), 1)
    assert one.shape == (1, 5, 7)
    assert np.abs(one[0].numpy() - weighed).max() <= 0.51


# What turns the stored pixels upright, by the EXIF standard's table.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(Image.fromarray(RGB), "PNG", exif=exif))
    assert torch.equal(image, chw(UPRIGHT[orientation](RGB).copy()))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_laid_over_white(kind):
    alpha = RNG.integers(0, 256, (5, 7, 1), dtype=np.uint8)
    alpha[0, 0], alpha[0, 1] = 0, 255
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = decode(encoded(Image.fromarray(np.concatenate([RGB, alpha], 2)), kind, **options))
    share = alpha / 255
    assert np.abs(image.permute(1, 2, 0).numpy() - (RGB * share + 255 * (1 - share))).max() <= 1
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[:, 0, 1].tolist() == RGB[0, 1].tolist()


def test_grey_with_alpha_is_laid_over_white():
    pixels = np.stack([GREY, np.zeros_like(GREY)], 2)
    assert (decode(encoded(Image.fromarray(pixels, "LA")), 1) == 255).all()


def test_palette_and_palette_transparency():
    indices = RNG.integers(0, 4, (5, 7), dtype=np.uint8)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], dtype=np.uint8)
    image = Image.fromarray(indices, "L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(colours.tobytes())
    assert torch.equal(decode(encoded(image)), chw(colours[indices]))
    over_white = colours.copy()
    over_white[2] = 255
    assert torch.equal(decode(encoded(image, transparency=2)), chw(over_white[indices]))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_divided_by_257_not_clipped(kind):
    image = decode(encoded(Image.fromarray(DEEP), kind), 1)
    assert image[0].tolist() == np.round(DEEP / 257).astype(int).tolist()
    assert image[0].tolist() == [[0, 0, 1, 1, 127], [128, 254, 255, 255, 255]]
    assert torch.equal(decode(encoded(Image.fromarray(DEEP), kind), 3), image.expand(3, 2, 5))


def test_the_transparent_value_of_sixteen_bits_becomes_white():
    image = decode(encoded(Image.fromarray(DEEP), transparency=32768), 1)
    assert image[0].tolist() == [[0, 0, 1, 1, 127], [255, 254, 255, 255, 255]]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_wide_modes_are_read_as_sixteen_bits(dtype):
    image = decode(encoded(Image.fromarray(DEEP.astype(dtype)), "TIFF"), 1)
    assert image[0].tolist() == np.round(DEEP / 257).astype(int).tolist()


def test_float_images_within_one_are_stretched():
    image = Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))
    assert decode(encoded(image, "TIFF"), 1)[0].tolist() == [[0, 128, 255]]


def test_values_beyond_sixteen_bits_are_refused():
    image = Image.fromarray(np.array([[0, 70000]], dtype=np.int32))
    with pytest.raises(UserError, match=r"its values run from 0 to 70000, outside 16 bits"):
        decode(encoded(image, "TIFF"), 1, "scan.tif")


def test_black_and_white_and_cmyk():
    bits = GREY > 127
    assert torch.equal(decode(encoded(Image.fromarray(bits)), 1)[0], torch.from_numpy(bits * np.uint8(255)))
    assert torch.equal(
        decode(encoded(Image.new("CMYK", (4, 4)), "TIFF")), torch.full((3, 4, 4), 255, dtype=torch.uint8)
    )


def test_a_pil_image_is_read_and_left_as_it_was():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encoded(Image.fromarray(RGB), "PNG", exif=exif)))
    assert decode(image).shape == (3, 7, 5)
    assert image.size == (7, 5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_image_is_named(kind):
    data = encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of a truncated TIFF before it raises
        with pytest.raises(UserError, match=r"^cannot read image 'x\.jpg': .+--on-error skip\)$") as caught:
            decode(data[: len(data) // 2], name="x.jpg")
    assert "\n" not in str(caught.value)


def test_no_image_and_no_file_are_named(tmp_path):
    with pytest.raises(
        UnreadableImage, match=r"cannot read image 'a\.png': not an image, or of an unknown format;"
    ):
        decode(b"hello", name="a.png")
    with pytest.raises(UnreadableImage, match=r"cannot read image 'a\.png': no such file;"):
        decode(tmp_path / "a.png", name="a.png")


def test_a_decoder_s_attribute_error_is_named_too(monkeypatch):
    """numpy takes an image that raises it for no array and goes on."""

    def load(self):
        raise AttributeError("in a decoder")

    data = encoded(Image.fromarray(RGB))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(UnreadableImage, match=r"cannot read image 'a\.png': in a decoder;"):
        decode(data, name="a.png")


def test_the_error_survives_pickling():
    with pytest.raises(UnreadableImage) as caught:
        decode(b"", name="a.png")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_other_channel_counts_are_refused():
    with pytest.raises(UserError, match=r"1 or 3 channels, not 4: set --channels to 1 or 3"):
        decode(encoded(Image.fromarray(RGB)), 4)


def test_with_channels_equals_pil_on_every_kind_of_colour():
    cube = np.stack(np.meshgrid(*[np.arange(0, 256, 5)] * 3), -1).reshape(52, -1, 3).astype(np.uint8)
    batch = torch.from_numpy(cube).permute(2, 0, 1)[None]
    assert np.array_equal(
        with_channels(batch, 1)[0, 0].numpy(), np.asarray(Image.fromarray(cube).convert("L"))
    )
    many = torch.randint(0, 256, (2500, 3, 2, 2), dtype=torch.uint8)  # more than one chunk
    assert torch.equal(with_channels(many, 1), torch.cat([with_channels(one[None], 1) for one in many]))


def test_with_channels_keeps_repeats_and_refuses():
    grey = torch.randint(0, 256, (2, 1, 3, 3), dtype=torch.uint8)
    assert with_channels(grey, 1) is grey
    assert torch.equal(with_channels(grey, 3), torch.cat([grey, grey, grey], 1))
    with pytest.raises(UserError, match="images of 5 channels cannot become 3"):
        with_channels(torch.zeros(1, 5, 2, 2, dtype=torch.uint8), 3)


def test_a_file_is_read_as_a_folder_reads_it(tmp_path):
    """Also where other readers differ: a photograph that lies on its side, a picture one can see through."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(RGB).save(tmp_path / "side.tif", exif=exif)
    clear = np.dstack([RGB, np.zeros((5, 7), np.uint8)])
    Image.fromarray(clear).save(tmp_path / "through.png")
    images = open_folder(tmp_path).train
    found = [read_image(tmp_path / key) for key in images.keys]
    assert all(torch.equal(image, images[index]) for index, image in enumerate(found))
    assert torch.equal(found[0], chw(RGB).rot90(-1, (1, 2))) and bool((found[1] == 255).all())
    assert read_image(str(tmp_path / "side.tif"), channels=1).shape == (1, 7, 5)
    with pytest.raises(UserError, match=r"cannot read image '.*none\.png': no such file"):
        read_image(tmp_path / "none.png")
