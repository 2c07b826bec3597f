"""timm's own weights: what timm would download is put in their place."""

import pytest
import timm
import torch
from torch import Tensor, nn

from byol.augment.views import normalized
from byol.core.input_normalization import input_normalization
from byol.core.named_backbone import build_backbone
from byol.errors import UserError


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Tensor]]:
    """By timm name, what the Hub answers to timm's own loader."""
    states: dict[str, dict[str, Tensor]] = {}

    def answer(model_id: str, *args: object, **settings: object) -> dict[str, Tensor]:
        return dict(states[model_id.removeprefix("timm/").split(".")[0]])

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", answer)
    return states


def first_convolution(net: nn.Module) -> Tensor:
    return next(module for module in net.modules() if isinstance(module, nn.Conv2d)).weight


def test_a_resnet_starts_from_them_without_its_classifier(published: dict[str, dict[str, Tensor]]) -> None:
    theirs = timm.create_model("resnet18").eval()
    published["resnet18"] = theirs.state_dict()
    backbone = build_backbone("resnet18", 64, stem="standard", pretrained=True)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone.eval()(images), expected)
    # A run's bundle holds the weights: building it again downloads nothing.
    published.clear()
    assert backbone.architecture is not None and "pretrained" not in backbone.architecture
    build_backbone(**backbone.architecture)


def test_grey_images_get_the_sum_over_the_colours(published: dict[str, dict[str, Tensor]]) -> None:
    theirs = timm.create_model("resnet18")
    published["resnet18"] = theirs.state_dict()
    backbone = build_backbone("resnet18", 128, channels=1, pretrained=True)
    expected = theirs.conv1.weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(first_convolution(backbone.net), expected)


def test_a_vision_transformer_keeps_them_at_another_size(published: dict[str, dict[str, Tensor]]) -> None:
    theirs = timm.create_model("test_vit")  # 160 pixels
    published["test_vit"] = theirs.state_dict()
    backbone = build_backbone("test_vit", 64, pretrained=True)
    assert torch.equal(first_convolution(backbone.net), theirs.patch_embed.proj.weight)
    assert backbone.eval()(torch.rand(2, 3, 64, 64)).shape == (2, backbone.num_features)


def test_their_pixels_are_normalised_as_timm_says() -> None:
    """timm's own transforms for its weights are the ones to agree with."""
    image = torch.rand(3, 32, 32)
    for name, mean in (("test_vit", 0.5), ("resnet18", 0.485), ("vit_base_patch16_clip_224", 0.48145466)):
        with torch.device("meta"):
            net = timm.create_model(name)
        theirs = timm.data.create_transform(**timm.data.resolve_data_config(model=net), is_training=False)
        found = normalized(image[None].clone(), input_normalization(net, 3, "timm"))[0]
        torch.testing.assert_close(found, theirs.transforms[-1](image), rtol=0, atol=1e-6)
        assert input_normalization(net, 3, "timm")[0][0] == mean
        assert input_normalization(net, 3, "imagenet") == input_normalization(net, 3, None)


def test_grey_images_are_normalised_by_the_average_over_the_colours() -> None:
    with torch.device("meta"):
        vit, clip = timm.create_model("test_vit"), timm.create_model("vit_base_patch16_clip_224")
    assert input_normalization(vit, 1, "timm") == ((0.5,), (0.5,))
    mean, std = input_normalization(clip, 2, "timm")
    assert mean == pytest.approx([(0.48145466 + 0.4578275 + 0.40821073) / 3] * 2, abs=1e-6)
    assert std == pytest.approx([(0.26862954 + 0.26130258 + 0.27577711) / 3] * 2, abs=1e-6)
    assert input_normalization(clip, 1, "imagenet") == ((0.449,), (0.226,))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("resnet8_16", {}, "timm has no weights for resnet8_16"),
        ("cspresnet50d", {}, "timm has no weights for cspresnet50d"),
        ("resnet18", {}, "first convolution of the small stem is another one. Give --stem standard"),
        ("resnet18", {"stem": "strided"}, "first convolution of the strided stem"),
        ("resnet19", {}, "unknown backbone 'resnet19'"),
    ],
)
def test_where_there_are_none(name: str, settings: dict[str, str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        build_backbone(name, 64, pretrained=True, **settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **settings: object) -> None:
        raise OSError("We couldn't connect\nto https://huggingface.co")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    with pytest.raises(UserError) as caught:
        build_backbone("resnet18", 128, pretrained=True)
    assert "cannot be had: We couldn't connect. Without a connection, fetch" in str(caught.value)
    assert "\n" not in str(caught.value)
