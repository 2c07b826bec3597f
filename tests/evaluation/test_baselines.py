from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.data.images import Subset, TensorImages
from byol.data.source import Source
from byol.errors import UserError
from byol.evaluation.baselines import centred_pixels, measure_batch_norm, random_init
from byol.evaluation.batches import preprocessed_batches
from byol.evaluation.features import extract

MakeBackbone = Callable[..., Backbone]
MakeNet = Callable[..., nn.Module]


def test_statistics_are_the_mean_over_whole_batches(
    backbone: Backbone, digits: Source, preprocess: Preprocess
) -> None:
    images = Subset(digits.train, torch.arange(128))
    measure_batch_norm(backbone, preprocess, images, batch_size=64)
    # Means do not depend on how 128 images fall into two batches; the first norm sees a convolution.
    batch = next(preprocessed_batches(images, preprocess, torch.arange(128)))
    with torch.no_grad():
        maps = backbone.net[0](batch)
    torch.testing.assert_close(backbone.net[1].running_mean, maps.mean(dim=(0, 2, 3)))
    variance = maps.var(dim=(0, 2, 3))
    torch.testing.assert_close(backbone.net[1].running_var, variance, rtol=0.02, atol=1e-3)
    assert backbone.net[1].momentum == 0.1


def test_an_incomplete_batch_is_left_out_and_the_pass_repeats(
    digits: Source, preprocess: Preprocess, make_backbone: MakeBackbone
) -> None:
    first, second = make_backbone(), make_backbone()
    state = torch.get_rng_state()
    for network in (first, second):
        measure_batch_norm(network, preprocess, Subset(digits.train, torch.arange(150)), batch_size=64)
    assert torch.equal(torch.get_rng_state(), state)
    assert int(first.net[1].num_batches_tracked) == 2
    assert torch.equal(first.net[1].running_var, second.net[1].running_var)


def test_random_init_is_the_network_of_step_zero(
    tmp_path: Path, digits: Source, make_backbone: MakeBackbone, make_net: MakeNet
) -> None:
    trained = make_backbone(1)
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    file = tmp_path / "initial.safetensors"
    save_file(make_net(2).state_dict(), file)
    initial = random_init(trained, file, digits.train)
    assert torch.equal(initial.net[0].weight, make_net(2)[0].weight)
    assert not torch.equal(initial.net[1].running_mean, torch.zeros(16))
    assert not initial.training
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.state_dict().items())


def test_missing_weights_of_step_zero(tmp_path: Path, digits: Source, make_backbone: MakeBackbone) -> None:
    with pytest.raises(UserError, match="step 0"):
        random_init(make_backbone(), tmp_path / "initial.safetensors", digits.train)


def test_pixels_are_centred_by_the_train_mean(digits: Source) -> None:
    network, preprocess = centred_pixels(digits.train)
    assert extract(network, preprocess, digits.train).vectors.mean(dim=0).abs().max() < 1e-5
    assert digits.test is not None
    raw = digits.test[3].flatten() / 255
    found = extract(network, preprocess, digits.test).vectors[3]
    torch.testing.assert_close(found, raw - network.mean)


@pytest.mark.parametrize(("sides", "expected"), [((40, 12), 12), ((12, 40), 12), ((64, 48), 32)])
def test_pixels_are_a_square_of_the_shorter_side_but_of_32_at_most(
    sides: tuple[int, int], expected: int
) -> None:
    images = torch.randint(0, 256, (4, 3, *sides), dtype=torch.uint8)
    _, preprocess = centred_pixels(TensorImages(images))
    assert preprocess.size == expected
