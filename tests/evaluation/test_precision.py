"""`--precision bf16`: the network runs under autocast; what comes out and what is fitted is float32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import byol
from byol.bundle import load_backbone
from byol.core.backbone import Backbone
from byol.data.source import Source
from byol.evaluation.supervised import Setting, Supervision
from byol.rundir import RunDirectory

MakeRun = Callable[..., RunDirectory]
MakeNet = Callable[..., nn.Module]
BF16: dict[str, Any] = {"precision": "bf16", "device": "cpu"}


def under_autocast(backbone: Backbone, images: Tensor) -> Tensor:
    """Return the vectors of preprocessed images, by torch's own hand."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        vectors: Tensor = backbone.net.eval()(images.contiguous(memory_format=torch.channels_last))
    return vectors.float()


def test_the_network_runs_in_bf16(backbone: Backbone, digits: Source) -> None:
    assert backbone.preprocess is not None
    images = backbone.preprocess(torch.stack([digits.train[index] for index in range(32)]))
    exact = backbone.eval()(images).detach()
    seen: list[torch.dtype] = []
    backbone.net[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    backbone.precision = "bf16"
    found = backbone(images).detach()
    assert seen == [torch.bfloat16] and found.dtype == torch.float32
    torch.testing.assert_close(found, under_autocast(backbone, images), atol=0, rtol=0)
    assert 0 < float((found - exact).norm() / exact.norm()) < 2**-6
    assert all(parameter.dtype == torch.float32 for parameter in backbone.parameters())
    assert backbone.feature_map(images).dtype == torch.float32


def test_embed(make_run: MakeRun, make_net: MakeNet, digits: Source, tmp_path: Path) -> None:
    run = make_run()
    exact = byol.embed(run.path, out=tmp_path / "exact.npy", net=make_net(), device="cpu", split="test")
    found = byol.embed(run.path, out=tmp_path / "found.npy", net=make_net(), split="test", **BF16)
    backbone = load_backbone(run.path, make_net())
    assert backbone.preprocess is not None and digits.test is not None
    images = backbone.preprocess(torch.stack([digits.test[index] for index in range(500)]))
    expected = under_autocast(backbone, images).numpy()
    np.testing.assert_allclose(np.load(found), expected, atol=2**-6, rtol=2**-6)
    assert not np.array_equal(np.load(found), np.load(exact))  # nor taken from the cache
    assert len(list(run.cache.glob("*.safetensors"))) == 2


def test_a_fit(backbone: Backbone, digits: Source) -> None:
    """The weights learn in float32: a step of bf16 could be too small to see."""
    backbone.precision = "bf16"
    supervision = Supervision(backbone, digits.train, 10)
    classifier = supervision.fitted(torch.arange(512), Setting(lr=0.5, epochs=4))
    assert all(parameter.dtype == torch.float32 for parameter in classifier.parameters())
    first, before = classifier.backbone.net[0].weight, backbone.net[0].weight
    assert not torch.equal(first, before) and not torch.equal(first, first.bfloat16().float())
    assert digits.test is not None and digits.test.labels is not None
    scores = supervision.scores(classifier, digits.test)
    assert float((scores.argmax(dim=1) == digits.test.labels).float().mean()) > 0.7


def test_results_say_so(make_run: MakeRun, make_net: MakeNet) -> None:
    tuning: dict[str, Any] = {"finetune_rates": "1", "finetune_epochs": "2", "save_networks": True}
    run = make_run()
    protocols: dict[str, Any] = {"protocol": "knn,finetune", "baselines": True}
    found = byol.evaluate(run.path, net=make_net(), **protocols, **tuning, **BF16)
    said = {result.features: result.settings.get("precision") for result in found}
    assert said == {"byol": "bf16", "random-init": "bf16", "pixels": None}
    network = run.networks / "byol-all"
    tuned = [r for r in found if (r.protocol, r.features) == ("finetune", "byol")]
    again = byol.evaluate(network, net=make_net(), data="digits", device="cpu")  # as it was fitted
    assert [result.value for result in again] == [result.value for result in tuned]
    assert {result.settings["precision"] for result in again} == {"bf16"}
    assert byol.load_classifier(network, make_net()).backbone.precision == "bf16"
    exact = byol.evaluate(network, net=make_net(), data="digits", device="cpu", precision="fp32")
    assert "precision" not in exact[0].settings
    assert exact[0].value == pytest.approx(again[0].value, abs=0.05)
