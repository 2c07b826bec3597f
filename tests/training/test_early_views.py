"""Progressive resizing: small views first, and everything else as without."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import byol
from byol.data.view_sizes import ViewSizes
from byol.rundir import RunDirectory
from byol.training import building, callbacks
from byol.training.callbacks import Monitor
from byol.training.errors import Interrupted
from byol.training.module import Pretraining
from tests.training.test_pretrain import assert_same_run


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sides of the first views of all micro-batches."""
    seen: list[int] = []
    original = Pretraining.training_step

    def training_step(self: Pretraining, batch: Any, batch_index: int) -> Tensor:
        make = self.make_views.forward
        with monkeypatch.context() as patch:
            patch.setattr(self.make_views, "forward", lambda batch: noted(make(batch)))
            return original(self, batch, batch_index)

    def noted(views: Any) -> Any:
        assert views[0].image.shape == views[1].image.shape
        seen.append(views[0].image.shape[-1])
        return views

    monkeypatch.setattr(Pretraining, "training_step", training_step)
    return seen


def settings_for(kind: str, tiny: dict[str, Any], photographs: Path) -> dict[str, Any]:
    """Return the settings of six steps of 32 pixels, three of them with views of 24."""
    streamed = {"data": f"folder:{photographs}", "image_size": 32, "batch_size": 8, "num_workers": 1}
    resident = {
        "data": torch.randint(0, 256, (80, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte(),
        "batch_size": 16,
    }
    kinds = {"resident": resident, "streamed": streamed, "micro-batches": {**resident, "accumulate": 2}}
    return {**tiny, **kinds[kind], "early_image_size": 24, "early_part": "50%"}


@pytest.mark.parametrize("kind", ["resident", "streamed", "micro-batches"])
def test_views_are_small_first(
    kind: str, tiny: dict[str, Any], photographs: Path, sides: list[int], tmp_path: Path
) -> None:
    settings = settings_for(kind, tiny, photographs)
    run = byol.pretrain(out=str(tmp_path / "run"), **settings)
    micro_batches = 3 * settings.get("accumulate", 1)
    assert sides == [24] * micro_batches + [32] * micro_batches
    assert byol.load_backbone(run.path).image_size == 32  # what comes after the run knows nothing of it


@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_a_stopped_run_goes_on_with_the_same_views(
    kind: str,
    steps: int,
    tiny: dict[str, Any],
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_for(kind, tiny, photographs)
    given = {} if isinstance(settings["data"], str) else {"data": settings["data"]}
    whole = byol.pretrain(out=str(tmp_path / "whole"), **settings)
    original = Monitor.__call__

    def interrupted(self: Monitor, module: Pretraining) -> None:
        original(self, module)
        if module.step == steps:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "__call__", interrupted)
        with pytest.raises(Interrupted):
            byol.pretrain(out=str(tmp_path / "parts"), **settings)
    resumed = byol.pretrain(resume=tmp_path / "parts", **given)
    assert_same_run(whole.path, resumed.path)


@pytest.mark.parametrize(("kind", "warmed"), [("resident", [24, 32]), ("streamed", [24, 32])])
def test_each_size_is_warmed_up(
    kind: str,
    warmed: list[int],
    tiny: dict[str, Any],
    photographs: Path,
    sides: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And leaves no trace."""
    settings = settings_for(kind, tiny, photographs)
    plain = byol.pretrain(out=str(tmp_path / "plain"), **settings)
    own = sides.copy()
    monkeypatch.setattr(callbacks, "needs_warm_up", lambda module: True)
    again = byol.pretrain(out=str(tmp_path / "warmed"), **settings)
    assert sides == [*own, *warmed, *own]
    assert_same_run(plain.path, again.path)


def test_a_compiled_run_compiles_both_sizes_before_its_first_step(
    tiny: dict[str, Any], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[str] = []
    started: list[str] = []

    def compiled(self: nn.Module, dynamic: bool | None = None) -> None:
        def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
            graphs.append("during" if started else "before")
            return graph

        self._compiled_call_impl = torch.compile(  # type: ignore[assignment]
            self._call_impl, backend=backend, dynamic=dynamic
        )

    original = callbacks.BetweenSteps.on_train_batch_start

    def starts(self: Any, *arguments: Any) -> None:
        started.append("step")
        original(self, *arguments)

    monkeypatch.setattr(building, "use_compile", lambda config: True)
    monkeypatch.setattr(nn.Module, "compile", compiled)
    monkeypatch.setattr(callbacks.BetweenSteps, "on_train_batch_start", starts)
    byol.pretrain(out=str(tmp_path / "run"), **settings_for("resident", tiny, photographs))
    assert set(graphs) == {"before"}
    assert len(graphs) >= 4  # online network and target, twice each


@pytest.mark.parametrize("method", ["pixpro", "pixcontrast", "simsiam"])
def test_other_methods_have_it(
    method: str, tiny: dict[str, Any], photographs: Path, sides: list[int], tmp_path: Path
) -> None:
    settings = settings_for("resident", tiny, photographs)
    byol.pretrain(method=method, out=str(tmp_path / "run"), **{**settings, "optimizer": "sgd"})
    assert sides == [24] * 3 + [32] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_image_size": 8}, "early_image_size is 8: it must be less than the image size, 8 pixels"),
        ({"early_image_size": 0}, "early_image_size is 0, it must be at least 1"),
        ({"early_part": "10%"}, "early_part means nothing without early_image_size"),
        ({"early_image_size": 6, "early_part": "half"}, "early_part is 'half': give epochs"),
    ],
    ids=str,
)
def test_what_cannot_be(settings: dict[str, Any], message: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(byol.UserError, match=message):
        byol.pretrain("digits", out=str(tmp_path / "run"), **tiny, **settings)
    assert not (tmp_path / "run").exists()


def test_a_network_of_one_size_is_refused_before_anything_is_written(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    settings = {**tiny, "backbone": net, "early_image_size": 6}
    with pytest.raises(byol.UserError, match="cannot take 1 x 6 x 6 images"):
        byol.pretrain("digits", out=str(tmp_path / "run"), **settings)
    assert not (tmp_path / "run").exists()


def test_the_summary_tells(tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = byol.pretrain("digits", out=str(tmp_path / "run"), **tiny, early_image_size=6, early_part="2st")
    assert "resnet8_16 at 6 px, from step 2 at 8 px, adamw" in capsys.readouterr().err
    assert RunDirectory(run.path).config()["early_part"] == "2st"


@pytest.mark.parametrize("sizes", [ViewSizes(32), ViewSizes(32, 24, 5), ViewSizes(32, 16, 0)], ids=str)
def test_work_is_the_area_of_all_views(sizes: ViewSizes) -> None:
    for position in range(9):
        area = sum(sizes.at(before) ** 2 for before in range(position))
        assert sizes.work(position) * 32**2 == pytest.approx(area)


def test_sizes_that_are_still_to_come() -> None:
    sizes = ViewSizes(32, 24, 5)
    assert [list(sizes.changes(position)) for position in (0, 4, 5, 7)] == [[0, 5], [4, 5], [5], [7]]
    assert list(ViewSizes(32).changes(3)) == [3]
