"""Blur against torchvision's, a sigma for each image."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from byol.augment import blur
from byol.augment.blur import gaussian_blur, kernel_radius


@pytest.mark.parametrize("size", [2, 8, 32, 33, 64, 100, 224])
def test_it_equals_torchvision(size):
    sigma = torch.tensor([0.1, 0.3, 1.0, 1.7, 2.0])
    images = torch.rand(5, 3, size, size)
    ours = gaussian_blur(images, sigma)
    for row, image in enumerate(images):
        theirs = tv.gaussian_blur(image, 2 * kernel_radius(size) + 1, float(sigma[row]))
        torch.testing.assert_close(ours[row], theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [8, 32, 224])
def test_sigma_0_leaves_the_image_alone(size):
    images = torch.rand(2, 3, size, size)
    blurred = gaussian_blur(images, torch.tensor([0.0, 1.0]))
    assert torch.equal(blurred[0], images[0])
    assert not torch.equal(blurred[1], images[1])


def test_the_paper_s_kernel_has_23_taps_at_224():
    assert 2 * kernel_radius(224) + 1 == 23
    assert kernel_radius(8) == 1


def test_one_channel_and_five():
    for channels in (1, 5):
        images, sigma = torch.rand(2, channels, 40, 40), torch.tensor([0.5, 2.0])
        theirs = tv.gaussian_blur(images[1], 5, 2.0)
        torch.testing.assert_close(gaussian_blur(images, sigma)[1], theirs, rtol=0, atol=1e-5)


def test_no_tap_is_so_small_that_processors_slow_down():
    """Numbers below float32's smallest normal one took an Intel processor ten times as long."""
    sigma = torch.linspace(0.1, 2.0, 1000)
    taps = blur._taps(sigma, 11)
    exact = torch.exp(-0.5 * (torch.arange(-11, 12) / sigma.double()[:, None]) ** 2)
    exact /= exact.sum(dim=1, keepdim=True)
    torch.testing.assert_close(taps[:, :-1].double(), exact, rtol=0, atol=1e-6)
    smallest_pixel = 1 / 255
    assert taps[taps > 0].min() ** 2 * smallest_pixel > torch.finfo(torch.float32).tiny
