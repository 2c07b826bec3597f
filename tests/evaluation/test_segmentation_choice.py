"""What segmentation's choices, predictions and reports are made of, on generated scenes in memory."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from byol.augment.evaluation import Preprocess
from byol.config import EvaluateConfig
from byol.core.backbone import Backbone
from byol.data.images import TensorImages
from byol.data.source import Source
from byol.errors import UserError
from byol.evaluation import segmentation
from byol.evaluation.dense_features import pixel_classes
from byol.evaluation.dense_task import divide_dense, masks_of
from byol.evaluation.measure import Machine, Representation
from byol.evaluation.pixel_head import PixelHeads
from byol.evaluation.pixel_metrics import mean_iou, pixel_confusion
from byol.evaluation.request import Request, parsed_request
from byol.evaluation.results import Result
from byol.evaluation.run import evaluate
from byol.evaluation.segmentation import DenseBench, dense_measured
from byol.evaluation.supervised import Setting
from byol.rundir import RunDirectory
from tests.scenes import scenes, write_scenes

MakeRun = Callable[..., RunDirectory]
MakeNet = Callable[..., nn.Module]
PREPROCESS = Preprocess(24, mean=(0.4,) * 3, std=(0.2,) * 3)
SMALL = {"finetune_rates": "0.5", "finetune_epochs": "2", "device": "cpu"}


def request(*heads: str) -> Request:
    asked = parsed_request(EvaluateConfig(target="", protocol="segmentation", heads=",".join(heads)))
    return replace(asked, grid=(Setting(0.1, 1), Setting(0.5, 2)))


@pytest.fixture
def bench(make_net: MakeNet) -> DenseBench:
    backbone = Backbone(make_net(1, 3), 24, channels=3, preprocess=PREPROCESS)
    task = divide_dense(Source("x", scenes(20), scenes(5, seed=1), validation=scenes(6, seed=2)), 0.1)
    representation = Representation("byol", backbone, PREPROCESS, 0, 1, None)
    return DenseBench(representation, task, request("linear", "fcn"), Machine(torch.device("cpu"), 0))


def test_the_choice_counts_each_head_s_pixels(bench: DenseBench) -> None:
    drawn = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    heads = PixelHeads(drawn(4, 3, 32), drawn(4, 3))
    choice = bench.task.choice
    maps = torch.cat(list(bench.maps(choice)))
    expected = [
        mean_iou(pixel_confusion(pixel_classes(logits, (24, 32), 255), masks_of(choice), bench.task.classes))
        for logits in heads.logits(maps)
    ]
    assert segmentation._choice_ious(bench, heads) == pytest.approx(expected)
    assert len({*expected}) == 4


def test_the_test_masks_choose_nothing_and_are_read_once(bench: DenseBench) -> None:
    test = bench.task.scored
    scrambled = ReadMasks(torch.randint(0, 3, (5, 24, 32), dtype=torch.uint8))
    assert isinstance(test, TensorImages)
    other = replace(bench.task, scored=TensorImages(test.images, masks=scrambled))
    own, others = (
        [result for results in dense_measured(replace(bench, task=task)) for result in results]
        for task in (bench.task, other)
    )
    assert [result.settings for result in own] == [result.settings for result in others]
    assert [len(result.settings["grid"]) for result in own] == [6, 6, 2, 2]
    assert all(one.value != two.value for one, two in zip(own, others, strict=True))
    # Each head's scoring reads every mask once; that of the linear one asks the first for its size, too.
    assert sorted(scrambled.read) == [0] * 3 + [index for index in range(1, 5) for _ in range(2)]


class ReadMasks:
    def __init__(self, masks: Tensor) -> None:
        self.masks = masks
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Tensor:
        self.read.append(index)
        return self.masks[index]


def test_predictions_are_kept_where_they_are_reported(bench: DenseBench) -> None:
    assert all(result.predictions is None for results in dense_measured(bench) for result in results)
    for results in dense_measured(replace(bench, keeps_predictions=True)):
        for result in results:
            assert isinstance(result.predictions, list)
            assert [found.shape for found in result.predictions] == [(24, 32)] * 5
            assert {found.dtype for found in result.predictions} == {torch.uint8}


@pytest.mark.parametrize("void", [0, 2])
def test_a_void_number_among_the_classes_is_never_predicted(void: int, bench: DenseBench) -> None:
    logits = torch.randn(2, 3, 4, 5)
    logits[:, void] = 100
    logits[0, :, 0, 0] = math.nan
    assert not (pixel_classes(logits, (9, 13), void) == void).any()
    assert (pixel_classes(logits, (9, 13), 255) == void).any()

    def voided(count: int, seed: int) -> TensorImages:
        part = scenes(count, seed=seed)
        part.masks[part.masks == 255] = void
        return part

    task = divide_dense(
        Source("x", voided(20, 0), voided(5, 1), validation=voided(6, 2)), 0.1, tuple("abc"), void
    )
    bench = replace(bench, task=task, keeps_predictions=True)
    for results in dense_measured(bench):
        predictions = results[0].predictions
        assert predictions is not None and not any((found == void).any() for found in predictions)
        confusion = pixel_confusion(predictions, masks_of(task.scored), task.classes)
        others = [index for index in range(3) if index != void]
        ious = []
        for index in others:
            both = float(confusion[index, index])
            ious.append(both / (float(confusion[index].sum() + confusion[:, index].sum()) - both))
        assert results[0].value == pytest.approx(np.mean(ious))


@pytest.fixture
def run(make_run: MakeRun, make_net: MakeNet, tmp_path: Path) -> RunDirectory:
    folder = write_scenes(tmp_path / "scenes", train=20, val=4, test=5)
    backbone = Backbone(make_net(1, 3), 24, channels=3, preprocess=PREPROCESS)
    made = make_run(backbone=backbone, data=f"hf:{folder}", data_dir=str(tmp_path / "downloads"))
    save_file(make_net(2, 3).state_dict(), made.initial_weights)
    return made


def test_a_report_is_written_before_the_next_measurement(
    run: RunDirectory, make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*_: object) -> None:
        raise UserError("fine-tuning diverged")

    monkeypatch.setattr(segmentation, "finetune_fcn", diverges)
    with pytest.raises(UserError, match="diverged"):
        evaluate(run.path, net=make_net(0, 3), protocol="segmentation", report=True, **SMALL)
    assert len(run.results()) == 2
    names = ["segmentation-linear.json", "segmentation-linear.png"]
    assert sorted(file.name for file in run.reports.iterdir()) == names


def test_only_reported_features_keep_predictions(run: RunDirectory, make_net: MakeNet) -> None:
    settings = {"protocol": "segmentation", "heads": "linear", "device": "cpu", "baselines": True}

    def kept(results: list[Result]) -> set[str]:
        return {result.features for result in results if result.predictions is not None}

    assert kept(evaluate(run.path, net=make_net(0, 3), **settings)) == set()
    assert kept(evaluate(run.path, net=make_net(0, 3), report=True, **settings)) == {"byol"}


def test_a_rate_that_diverges_is_null_in_the_record(run: RunDirectory, make_net: MakeNet) -> None:
    settings = {**SMALL, "finetune_rates": "0.5,99999"}
    evaluate(run.path, net=make_net(0, 3), protocol="segmentation", heads="fcn", **settings)

    def refuse(text: str) -> None:
        raise AssertionError(text)

    json.loads(run.results_file.read_text(), parse_constant=refuse)


def test_patch_knn_needs_no_images_to_choose_on(make_run: MakeRun, make_net: MakeNet, tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "few", train=5, test=4)
    backbone = Backbone(make_net(1, 3), 24, channels=3, preprocess=PREPROCESS)
    run = make_run(backbone=backbone, data=f"hf:{folder}", data_dir=str(tmp_path / "downloads"))
    results = evaluate(run.path, net=make_net(0, 3), protocol="patch_knn", device="cpu")
    assert [result.metric for result in results] == ["miou", "pixel_accuracy"]
    with pytest.raises(UserError, match="none is left to choose"):
        evaluate(run.path, net=make_net(0, 3), protocol="patch_knn,segmentation", device="cpu")
