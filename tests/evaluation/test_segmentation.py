"""`byol evaluate --protocol segmentation,patch_knn` from a run to results, table, report and picture."""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from byol.augment.evaluation import Preprocess
from byol.core.backbone import Backbone
from byol.data.masks import PixelClasses
from byol.evaluation import segmentation_picture
from byol.evaluation.dense_features import WholeImages, map_batches
from byol.evaluation.results import table
from byol.evaluation.run import evaluate
from byol.evaluation.segmentation_picture import class_colours, coloured, draw_segmentation
from byol.evaluation.tracked import metrics_of
from byol.rundir import RunDirectory
from tests.scenes import scenes, write_scenes

MakeRun = Callable[..., RunDirectory]
MakeNet = Callable[..., nn.Module]
SMALL = {"finetune_rates": "0.5", "finetune_epochs": "2", "device": "cpu"}


@pytest.fixture
def run(make_run: MakeRun, make_net: MakeNet, tmp_path: Path) -> RunDirectory:
    folder = write_scenes(tmp_path / "scenes", train=40, val=8, test=9)
    preprocess = Preprocess(24, mean=(0.4,) * 3, std=(0.2,) * 3)
    backbone = Backbone(make_net(1, 3), 24, channels=3, preprocess=preprocess)
    made = make_run(backbone=backbone, data=f"hf:{folder}", data_dir=str(tmp_path / "downloads"))
    save_file(make_net(2, 3).state_dict(), made.initial_weights)
    return made


def test_a_run_with_baselines_and_reports(run: RunDirectory, make_net: MakeNet) -> None:
    results = evaluate(
        run.path,
        net=make_net(0, 3),
        protocol="segmentation,patch_knn",
        baselines=True,
        report=True,
        classes="ground,red,blue",
        **SMALL,
    )
    rows = {(r.name, r.features, r.metric): r for r in results}
    names = ("segmentation-linear", "segmentation-fcn", "patch_knn")
    assert {*rows} == {
        (name, features, metric)
        for name in names
        for features in ("byol", "random-init")
        for metric in ("miou", "pixel_accuracy")
    }
    assert run.results() == [result.to_dict() for result in results]
    first = rows["segmentation-linear", "byol", "miou"]
    assert (first.protocol, first.split, first.labels, first.draw, first.seed) == (
        *("segmentation", "test", "all"),
        *(None, 3),
    )
    assert first.settings["head"] == "linear" and first.settings["chosen_on"] == "validation"
    best = max(first.settings["grid"], key=lambda entry: entry["validation"])
    assert len(first.settings["grid"]) == 6 and first.settings["lr"] == best["lr"]
    assert first.value > 0.7  # colours tell the classes
    check_report(run.reports / "segmentation-linear.json", first.value)
    check_report(run.reports / "segmentation-fcn.json", rows["segmentation-fcn", "byol", "miou"].value)
    assert {file.name for file in run.reports.iterdir()} == {
        f"segmentation-{head}.{kind}" for head in ("linear", "fcn") for kind in ("json", "png")
    }
    console = Console(width=200, file=io.StringIO())
    console.print(table(results, "miou"))
    text = console.file.getvalue()
    assert "miou, 9 test images" in text and "segmentation-fcn" in text and f"{100 * first.value:.1f}" in text
    assert len({name for name, _, _ in metrics_of(results)}) == len(results)


def check_report(file: Path, miou: float) -> None:
    report = json.loads(file.read_text())
    masks = scenes(9, seed=2).masks
    assert report["images"] == 9 and report["miou"] == pytest.approx(miou)
    assert [entry["name"] for entry in report["classes"]] == ["ground", "red", "blue"]
    assert [entry["pixels"] for entry in report["classes"]] == [int((masks == k).sum()) for k in range(3)]
    confusion = np.array(report["confusion"])
    ious = confusion.diagonal() / (confusion.sum(0) + confusion.sum(1) - confusion.diagonal())
    assert [entry["iou"] for entry in report["classes"]] == pytest.approx(ious.tolist())
    assert ious.mean() == pytest.approx(miou)
    with Image.open(file.with_suffix(".png")) as picture:
        assert min(picture.size) > 300 and len(np.unique(np.asarray(picture).reshape(-1, 4), axis=0)) > 100


def test_one_head_and_predictions_of_whole_images(run: RunDirectory, make_net: MakeNet) -> None:
    settings = {"heads": "linear", "report": True, "device": "cpu"}
    results = evaluate(run.path, net=make_net(0, 3), protocol="segmentation", **settings)
    assert [(r.name, r.metric) for r in results] == [
        ("segmentation-linear", "miou"),
        ("segmentation-linear", "pixel_accuracy"),
    ]
    masks, predictions = scenes(9, seed=2).masks, results[1].predictions
    assert predictions is not None
    counted = masks != 255
    right = torch.stack([*predictions])[counted] == masks[counted]
    assert results[1].value == pytest.approx(float(right.double().mean()))


def test_maps_leave_the_network_bit_identical(make_backbone: Callable[..., Backbone]) -> None:
    backbone = make_backbone(0, 3).train()
    backbone.preprocess = Preprocess(8, mean=(0.4,) * 3, std=(0.2,) * 3)
    backbone.prepare_feature_map()
    before, part = copy.deepcopy(backbone.state_dict()), scenes(20)
    maps = torch.cat(list(map_batches(backbone, part)))
    assert backbone.training and maps.shape == (20, 32, 12, 16)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    with torch.no_grad():
        expected = backbone.eval().feature_map((part.images.float() / 255 - 0.4) / 0.2)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)


def test_networks_of_one_size_get_resized_images() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
    backbone = Backbone(net, 16, channels=3, preprocess=Preprocess(16, (0.0,) * 3, (1.0,) * 3))
    inputs, part = WholeImages(backbone), scenes(3)
    assert not inputs.takes(part.images.shape[1:]) and inputs.takes(torch.Size((3, 16, 16)))
    assert inputs(part.images).shape == (3, 3, 16, 16)
    edges = torch.zeros(1, 3, 48, 48, dtype=torch.uint8)
    edges[..., 20:] = 255
    # Bicubic resampling overshoots at edges, and pixels end at 0 and 1.
    assert inputs(edges).aminmax() == (0, 1)
    assert next(map_batches(backbone, part)).shape == (3, 4, 8, 8)


def test_a_full_gpu_is_not_taken_for_a_wrong_size() -> None:
    def fill(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    net = nn.Conv2d(3, 4, 2)
    backbone = Backbone(net, 16, channels=3, preprocess=Preprocess(16, (0.0,) * 3, (1.0,) * 3))
    net.register_forward_pre_hook(fill)
    inputs = WholeImages(backbone)
    for examine in (lambda: inputs.takes(torch.Size((3, 16, 16))), lambda: Backbone(net, 16, channels=3)):
        with pytest.raises(torch.OutOfMemoryError):
            examine()


def test_the_picture_shows_truth_and_prediction_in_the_legend_s_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(segmentation_picture, "save_figure", lambda figure, file: figures.append(figure))
    part, names = scenes(2), ("ground", "red", "blue")
    assert part.masks is not None
    truths = torch.stack([part.masks[index] for index in range(2)])
    predictions = torch.where(truths == 1, 2, torch.where(truths == 2, 1, 0)).to(torch.uint8)
    rows = list(zip(part.images, truths, predictions, strict=True))
    draw_segmentation(tmp_path / "x.png", rows, PixelClasses(names, 255), "two scenes")
    legend, panels = figures[0].legends[0], figures[0].axes
    colours = {
        text.get_text(): patch.get_facecolor()[:3]
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }
    assert colours.keys() == {*names, "void"} and colours["void"] == (0, 0, 0)
    assert [panel.get_title() for panel in panels[:3]] == ["image", "truth", "prediction"]
    for row, (image, *numbers) in enumerate(rows):
        shown = [np.asarray(panel.images[0].get_array()) for panel in panels[3 * row : 3 * row + 3]]
        assert np.array_equal(shown[0], image.permute(1, 2, 0))
        for picture, wanted in zip(shown[1:], numbers, strict=True):
            named = [
                [colours[dict(enumerate(names)).get(k, "void")] for k in line] for line in wanted.tolist()
            ]
            np.testing.assert_allclose(picture, named)


def test_void_is_black_and_classes_are_not() -> None:
    classes = PixelClasses(("a", "b"), 9)
    shown = coloured(torch.tensor([[0, 1], [9, 0]], dtype=torch.uint8), class_colours(2), classes.void)
    assert shown[1, 0].tolist() == [0, 0, 0]
    assert shown[0, 0].tolist() == shown[1, 1].tolist() != shown[0, 1].tolist()
    for count in (11, 20, 30):
        assert len({*map(tuple, class_colours(count).tolist())}) == count
