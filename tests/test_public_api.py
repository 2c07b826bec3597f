"""`import byol`: quick, complete, and not shadowed by its own modules."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import byol
from byol.errors import UserError

HEAVY = ("torch", "torchvision", "lightning", "timm", "datasets", "sklearn", "matplotlib", "numpy")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import byol",
        "import byol.cli",
        "import byol.cli; byol.cli.main(['--help'])",
        "import byol; dir(byol)",
    ],
)
def test_it_loads_nothing_heavy(code: str) -> None:
    report = f"print('loaded', [name for name in {HEAVY} if name in sys.modules])"
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit as stop:\n    assert not stop.code\n{report}"
    assert python(script).splitlines()[-1] == "loaded []"


def test_no_module_bears_the_name_of_a_public_one() -> None:
    modules = {info.name for info in pkgutil.iter_modules(byol.__path__)}
    assert modules and not modules & set(byol.__all__)


def import_everything() -> None:
    for info in pkgutil.walk_packages(byol.__path__, "byol."):
        if info.name != "byol.__main__":  # which runs the command line
            importlib.import_module(info.name)


def test_every_public_name_is_still_a_function_after_every_module_was_imported() -> None:
    import_everything()
    for name in byol.__all__:
        public = getattr(byol, name)
        assert callable(public) and not inspect.ismodule(public), name
        assert inspect.getdoc(public), f"{name} has no docstring"


def test_every_public_function_can_be_called(tmp_path: Path) -> None:
    import_everything()
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert byol.views(images, size=8)[0].shape == (4, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    learner = byol.BYOL(net, image_size=8, hidden_layer=None, projection_hidden_size=8)
    assert learner(images).ndim == 0
    optimizer = byol.LARS(learner.online_parameters(), lr=0.1)
    data = byol.MockDataset(8, 4)
    assert byol.train_byol(learner, [torch.stack(list(data))], optimizer, 1, "cpu") is learner
    trainer = byol.BYOLTrainer(
        net,
        dataset=data,
        image_size=8,
        hidden_layer=None,
        learning_rate=1e-3,
        num_train_steps=1,
        batch_size=4,
        checkpoint_folder=tmp_path,
        byol_kwargs={"projection_hidden_size": 8},
    )
    trainer()
    missing = str(tmp_path / "missing")
    with pytest.raises(UserError):
        byol.load_backbone(missing)
    with pytest.raises(UserError):
        byol.load_classifier(missing)
    with pytest.raises(UserError):
        byol.evaluate(missing)
    with pytest.raises(UserError):
        byol.embed(missing, out=str(tmp_path / "out.npy"))
    with pytest.raises(UserError):
        byol.pretrain(data=missing)
    with pytest.raises(UserError):
        byol.read_image(missing)
    with pytest.raises((UserError, TypeError)):
        byol.demo(no_such_setting=1)


def test_names_are_listed_before_they_are_loaded() -> None:
    listed = python("import byol; print(sorted(set(byol.__all__) - set(dir(byol)))); print(byol.__version__)")
    assert listed.splitlines()[0] == "[]"
    assert listed.splitlines()[1].count(".") == 2
    assert set(byol.__all__) == set(byol._HOMES)


def test_the_hints_for_type_checkers_name_the_same_homes() -> None:
    source = Path(byol.__file__).read_text()
    for name, home in byol._HOMES.items():
        assert f"from {home} import {name} as {name}" in source


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'byol' has no attribute 'BYOLL'"):
        _ = byol.BYOLL
    assert not hasattr(byol, "__path_that_is_not__")
    with pytest.raises(ImportError):
        exec("from byol import Byol")
