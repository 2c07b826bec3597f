"""The online probe learns beside the learner, which is what it would be without it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.utils.data import TensorDataset

import byol
from byol.data.batches import BatchPlan
from byol.data.source import open_source
from byol.data.splits import holdout_split
from byol.errors import UserError
from byol.rundir import RunDirectory
from byol.training.checkpoint import load
from byol.training.online_probe import LEARNING_RATE, OnlineProbe
from byol.training.run import Run
from tests.training.test_pretrain import assert_same_run, assert_same_tensors, lasting
from tests.training.test_resume import stopping_at


@pytest.fixture(scope="module")
def run(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("probed") / "run"
    return byol.pretrain("digits", out=str(out), online_probe=True, **tiny)


def without_the_probe(run: Path) -> list[dict[str, Any]]:
    records = lasting(RunDirectory(run).metrics())
    return [{name: value for name, value in record.items() if name != "online"} for record in records]


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"method": "simsiam"}], ids=str)
def test_the_learner_is_what_it_is_without(
    settings: dict[str, Any], tiny: dict[str, Any], tmp_path: Path
) -> None:
    states = []
    for name, probe in (("with", True), ("without", False)):
        out = tmp_path / name
        byol.pretrain("digits", out=str(out), online_probe=probe, **{**tiny, **settings})
        states.append(load(RunDirectory(out).last_checkpoint))
    probed, plain = states
    for part in ("learner", "watch", "optimizer"):
        assert_same_tensors(probed[part], plain[part])
    assert without_the_probe(tmp_path / "with") == without_the_probe(tmp_path / "without")
    assert plain["online_probe"] is None
    assert probed["online_probe"]["classifier"]["weight"].abs().max() > LEARNING_RATE


@pytest.mark.parametrize("shares", [1, 3])
def test_its_gradient_is_that_of_the_mean_cross_entropy(shares: int) -> None:
    """d/dW of the mean over both views of all images: (softmax - one-hot)^T x, in float64."""
    generator = torch.Generator().manual_seed(0)
    representation = torch.randn(2, 6, 5, generator=generator)  # [2,B,D]
    labels = torch.tensor([0, 2, 1, 2, 0, 1])
    probe = OnlineProbe(5, 3)
    weight = torch.randn(3, 5, generator=generator)
    probe.load_state_dict({"weight": weight, "bias": torch.zeros(3)})
    for part in torch.arange(6).chunk(shares):
        probe.learn(torch.cat(list(representation[:, part])), labels[part], 1 / shares)
    x, y = representation.flatten(0, 1).double().numpy(), np.eye(3)[labels.repeat(2)]
    odds = np.exp(x @ weight.double().numpy().T)
    error = odds / odds.sum(1, keepdims=True) - y
    assert probe.weight.grad is not None and probe.bias.grad is not None
    np.testing.assert_allclose(probe.weight.grad, error.T @ x / 12, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(probe.bias.grad, error.mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 10])
def test_it_comes_near_logistic_regression_whatever_the_scale(scale: float) -> None:
    """On features that stay as they are, in 800 steps."""
    images, labels = load_digits(return_X_y=True)
    best = LogisticRegression(max_iter=2000).fit(images[:1200] / 16, labels[:1200])
    vectors, targets = torch.from_numpy(images).float() / 16 * scale, torch.from_numpy(labels)
    plan, probe = BatchPlan(1200, 128), OnlineProbe(64, 10)
    probe.begin()
    for step in range(800):
        rows = plan.indices(step)
        probe.zero_grad()
        probe.learn(vectors[rows].repeat(2, 1), targets[rows], 1)
        probe.step(1 - step / 800)
    reached = float((probe(vectors[1200:]).argmax(1) == targets[1200:]).double().mean())
    assert reached > best.score(images[1200:] / 16, labels[1200:]) - 0.03


def test_its_accuracy_on_the_holdout_is_logged_with_knn(run: Run) -> None:
    found = {record["step"]: record["online"] for record in run.metrics() if "online" in record}
    assert [record["step"] for record in run.metrics() if "knn" in record] == list(found) == [3, 6]
    source = open_source("digits").train
    assert source.labels is not None
    held = holdout_split(len(source), source.labels)[1]
    images = [source[index] for index in held.tolist()]
    assert found[6] == pytest.approx(accuracy_of(run, images, source.labels[held]))


def accuracy_of(run: Run, images: list[Tensor], truth: Tensor) -> float:
    """Score the saved classifier on clean images in eval mode, in plain torch."""
    backbone, classifier = run.backbone(), load_file(RunDirectory(run.path).online_probe)
    with torch.no_grad():
        vectors = backbone(backbone.preprocess(torch.stack(images)))
    predicted = (vectors @ classifier["weight"].T + classifier["bias"]).argmax(1)
    return float((predicted == truth).double().mean())


def test_evaluate_scores_it_as_it_is(run: Run, photographs: Path) -> None:
    test = open_source("digits").test
    assert test is not None and test.labels is not None
    results = byol.evaluate(run.path, protocol="online,knn", baselines=True)
    (result,) = (result for result in results if (result.protocol, result.metric) == ("online", "top1"))
    assert (result.features, result.split, result.labels) == ("byol", "test", "all")
    assert result.value == pytest.approx(accuracy_of(run, list(test), test.labels))
    for bad, message in (
        ({"target": run.path, "labels": "1"}, "the online probe has learned from all labels"),
        ({"target": run.path / "model", "data": "digits"}, "needs a run of pretrain --online-probe"),
        ({"target": run.path, "data": f"folder:{photographs}"}, "the run's own data only"),
    ):
        with pytest.raises(UserError, match=message):
            byol.evaluate(**{"protocol": "online", **bad})


@pytest.mark.parametrize("streamed", [False, True])
def test_it_resumes_exactly(streamed: bool, tiny: dict[str, Any], photographs: Path, tmp_path: Path) -> None:
    settings = {**tiny, "online_probe": True}
    if streamed:
        settings |= {"image_size": 32, "batch_size": 8, "num_workers": 1}
    data = f"folder:{photographs}" if streamed else "digits"
    whole = byol.pretrain(data, out=str(tmp_path / "whole"), **settings)
    with stopping_at(2):
        byol.pretrain(data, out=str(tmp_path / "part"), **settings)
    part = load(RunDirectory(tmp_path / "part").last_checkpoint)
    assert_same_run(whole.path, byol.pretrain(resume=tmp_path / "part").path)
    assert (part["online_probe"]["classifier"]["weight"] != 0).any()


def test_without_labels_there_is_none(tiny: dict[str, Any], tmp_path: Path) -> None:
    images = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8)
    with pytest.raises(UserError, match=r"--online-probe learns from labels, and .* has no"):
        byol.pretrain(images, out=str(tmp_path / "run"), online_probe=True, **tiny)
    assert not (tmp_path / "run").exists()
    labelled = TensorDataset(images, torch.arange(100) % 4)
    run = byol.pretrain(labelled, out=str(tmp_path / "run"), online_probe=True, **tiny)
    assert load_file(RunDirectory(run.path).online_probe)["weight"].shape == (4, 64)
