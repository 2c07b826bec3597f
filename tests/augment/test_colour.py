"""Each colour operation against torchvision's, and the parameter that leaves an image alone."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from byol.augment import colour
from byol.augment.draw import BRIGHTNESS, CONTRAST, NONE, SATURATION

CLOSE = {"rtol": 0, "atol": 1e-5}


def images(count=6, channels=3):
    """Random colours, with black, white, grey and fully saturated pixels among them."""
    batch = torch.rand(count, channels, 17, 13, generator=torch.Generator().manual_seed(0))
    batch[:, :, 0] = batch[:, :1, 0]  # grey
    batch[:, :, 1] = (batch[:, :, 1] > 0.5).float()  # corners of the colour cube
    batch[:, :, 2], batch[:, :, 3] = 0.0, 1.0
    return batch


@pytest.mark.parametrize(
    ("kind", "adjust"),
    [(BRIGHTNESS, tv.adjust_brightness), (CONTRAST, tv.adjust_contrast), (SATURATION, tv.adjust_saturation)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_blends_equal_torchvision(kind, adjust, channels):
    batch, factor = images(channels=channels), torch.tensor([0.0, 0.3, 0.6, 1.0, 1.4, 3.0])
    ours = colour.blend(batch, torch.full((6,), kind), factor)
    for row, image in enumerate(batch):
        torch.testing.assert_close(ours[row], adjust(image, float(factor[row])), **CLOSE)


def test_blends_of_different_kinds_share_a_batch():
    batch, kind = images(4), torch.tensor([NONE, BRIGHTNESS, CONTRAST, SATURATION])
    factor = torch.tensor([1.0, 0.7, 0.7, 0.7])
    together = colour.blend(batch, kind, factor)
    assert torch.equal(together[0], batch[0])
    for row in range(4):
        alone = colour.blend(batch[row, None], kind[row, None], factor[row, None])
        torch.testing.assert_close(together[row], alone[0])


def test_hue_equals_torchvision():
    batch, turns = images(), torch.tensor([-0.5, -0.1, 0.0, 0.05, 0.1, 0.5])
    ours = colour.shift_hue(batch, turns)
    for row, image in enumerate(batch):
        torch.testing.assert_close(ours[row], tv.adjust_hue(image, float(turns[row])), **CLOSE)


def test_no_turn_leaves_the_image_alone():
    torch.testing.assert_close(colour.shift_hue(images(), torch.zeros(6)), images(), **CLOSE)


def test_grey_equals_torchvision():
    torch.testing.assert_close(
        colour.to_grey(images(), torch.ones(6, dtype=torch.bool)), tv.rgb_to_grayscale(images(), 3), **CLOSE
    )


def test_solarize_equals_torchvision():
    batch, threshold = images(), torch.tensor([0.5, 0.0, 1.0, 0.3, 0.9, 2.0])
    ours = colour.solarize(batch, threshold)
    for row, image in enumerate(batch[:5]):
        torch.testing.assert_close(ours[row], tv.solarize(image, float(threshold[row])), **CLOSE)
    assert torch.equal(ours[5], batch[5])


def test_intensity_is_a_gain_and_an_offset():
    batch, gain, offset = images(2, 1), torch.tensor([0.6, 1.4]), torch.tensor([0.1, -0.1])
    ours = colour.intensity(batch, gain, offset)
    torch.testing.assert_close(ours[0], (0.6 * batch[0] + 0.1).clamp(0, 1))
    torch.testing.assert_close(ours[1], (1.4 * batch[1] - 0.1).clamp(0, 1))
