"""What a run is built of: compiled where that can be and gains something, with boxes where they are used."""

import inspect
import shutil
import sysconfig
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from byol.config import PretrainConfig
from byol.data.batches import BatchPlan
from byol.data.images import TensorImages
from byol.errors import UserError
from byol.training import building, compilation
from byol.training.building import build_module
from byol.training.compilation import not_compiled_message, use_compile
from byol.training.preparation import PreparedData
from byol.training.resolution import Lengths, resolve

MISSING = {
    "a C compiler": (shutil, "which", lambda name: None),
    "Python's header files": (sysconfig, "get_path", lambda name: "/nowhere"),
    "Triton": (compilation, "find_spec", lambda name: None),
    "compute capability": (torch.cuda, "get_device_capability", lambda: (6, 1)),
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a GPU and all that compiling for it needs."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
    monkeypatch.setattr(compilation, "find_spec", lambda name: name)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("what", MISSING)
def test_without_something_that_it_needs_nothing_is_compiled(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, auto, off = (PretrainConfig(compile=choice) for choice in ("on", "auto", "off"))  # type: ignore
    assert use_compile(on) and use_compile(auto) and not use_compile(off)
    assert not_compiled_message(auto) is None
    monkeypatch.setattr(*MISSING[what])
    assert not use_compile(auto) and not use_compile(off)
    assert what in (not_compiled_message(auto) or "")
    assert not_compiled_message(on) is None and not_compiled_message(off) is None
    with pytest.raises(UserError, match=f"--compile on needs .*{what}"):
        use_compile(on)


def test_a_compiler_is_looked_for_where_it_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Triton, for a GPU, and by torch, for a CPU."""
    on = PretrainConfig(compile="on")
    for on_gpu, variable, name in ((True, "CC", "gcc"), (False, "CXX", "g++")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda on_gpu=on_gpu: on_gpu)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        monkeypatch.setattr(compilation, "find_spec", lambda name: name)
        for there, set_to, found in ((name, "", True), ("cc", "", False), ("mine", "mine", True)):
            monkeypatch.setenv(variable, set_to)
            monkeypatch.setattr(shutil, "which", lambda name, there=there: name if name == there else None)
            if found:
                assert use_compile(on)
            else:
                with pytest.raises(UserError, match="compiler"):
                    use_compile(on)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("settings", "networks"),
    [({}, False), ({"compile": "on"}, True), ({"normalization": "group"}, True)],
)
def test_synchronised_batch_norms_leave_nothing_to_compile(settings: dict[str, Any], networks: bool) -> None:
    for processes in (1, 2):
        module = module_of(BatchPlan(64, 32, processes=processes), settings)
        assert module.compiled == (networks or processes == 1)
        assert (module.learner.online._compiled_call_impl is not None) == module.compiled
        assert module.make_views.make.compiled is not module.make_views.make.plain


@pytest.mark.parametrize("method", ["byol", "simsiam", "pixpro", "pixcontrast"])
def test_views_have_boxes_for_learners_that_ask_for_them(method: str) -> None:
    """The same images from the same random numbers, and the same mirroring, with boxes or without."""
    plan = BatchPlan(64, 32)
    module = module_of(plan, {"method": method})
    batch: Any = SimpleNamespace(position=1, images=plan.indices(1))
    views = module.make_views(batch)
    assert all((view.box is not None) == (method in ("pixpro", "pixcontrast")) for view in views)
    module.make_views.boxes = True
    for view, same in zip(views, module.make_views(batch), strict=True):
        assert same.box is not None and same.box.shape == (32, 4)
        assert torch.equal(view.image, same.image) and torch.equal(view.flipped, same.flipped)


@pytest.mark.parametrize("method", ["byol", "simsiam", "pixpro", "pixcontrast"])
def test_widths_that_earlier_runs_left_open_are_the_published_ones(method: str) -> None:
    plan = BatchPlan(64, 32)
    now = module_of(plan, {"method": method}).learner
    earlier = module_of(plan, {"method": method}, projection_size=None, projection_hidden_size=None).learner
    shapes, same = ({n: v.shape for n, v in each.state_dict().items()} for each in (now, earlier))
    assert shapes == same


WIDTHS = {"projection_size": 24, "projection_hidden_size": 40}
ASKED: list[tuple[dict[str, Any], dict[str, Any]]] = [  # flags, and the learner's arguments
    (
        {"target_statistics": "average", "gather_projections": True, "tau": 0.9},
        {"target_statistics": "average", "gather_projections": True, "moving_average_decay": 0.9}
        | {"use_momentum": True, "normalization": "batch"},
    ),
    ({"normalization": "group"}, {"normalization": "group"}),
    ({"method": "simsiam"}, {"use_momentum": False}),
    (
        {"method": "pixpro", "propagation_layers": 2, "propagation_gamma": 1.5, "positive_distance": 0.5}
        | {"feature_layer": "layer3", "instance_weight": 0.25, "normalization": "group", "tau": 0.9},
        {"use_pixpro": True, "ppm_num_layers": 2, "ppm_gamma": 1.5, "distance_thres": 0.5}
        | {"hidden_layer_pixel": "layer3", "alpha": 0.25, "normalization": "group"}
        | {"moving_average_decay": 0.9},
    ),
    (
        {"method": "pixcontrast", "pixel_temperature": 0.2},
        {"use_pixpro": False, "similarity_temperature": 0.2},
    ),
]


@pytest.mark.parametrize(("flags", "expected"), ASKED, ids=str)
def test_every_setting_reaches_the_learner(
    flags: dict[str, Any], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "PixelCL" if "use_pixpro" in expected else "BYOL"
    found: dict[str, Any] = {}
    learner = getattr(building, name)

    def recorded(*arguments: Any, **named: Any) -> Any:
        found.update(inspect.signature(learner).bind(*arguments, **named).arguments)
        return learner(*arguments, **named)

    monkeypatch.setattr(building, name, recorded)
    module_of(BatchPlan(64, 32), {**WIDTHS, **flags})
    same = {**WIDTHS, "image_size": 16, "channels": 3, "total_steps": 4, "sync_batchnorm": False}
    assert found == found | expected | same


@pytest.mark.parametrize("optimizer", ["lars", "adamw", "sgd"])
def test_every_setting_reaches_the_optimizer(optimizer: str) -> None:
    """The rate is per 256 images, and batches are of 32."""
    flags = {"base_lr": 0.8, "weight_decay": 0.03, "warmup_start": 0.25, "final_lr": 0.01}
    settings = module_of(BatchPlan(64, 32), {"optimizer": optimizer, **flags}).settings
    expected = (optimizer, 0.1, 0.03, False, 1, 4, 0.25, 0.01)
    assert astuple(settings) == expected
    assert module_of(BatchPlan(64, 32), {"method": "simsiam"}).settings.decay_all


def module_of(plan: BatchPlan, settings: dict[str, Any], **stored: Any) -> Any:
    """Return the module of these settings, resolved but for what is `stored` otherwise."""
    images = torch.arange(64 * 3 * 16 * 16).mul(37).remainder(256).byte().view(64, 3, 16, 16)
    held = TensorImages(images)
    data = PreparedData("some", held, TensorImages(images[:0]), held, images, 3, ())
    config = PretrainConfig(backbone="resnet8_16", batch_size=32, preset="small", **settings)
    return build_module(
        replace(resolve(config, data), **stored), data, plan, Lengths(4, 1, 1, 0, 0, 0), None, None
    )
