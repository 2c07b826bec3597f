"""Works are measured in turns; one that dies ends alone."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]
LIVES = "import sys\nfor line in sys.stdin: print('{\"seconds\": 2.0}', flush=True)\n"
DIES = "print(input() or '{\"seconds\": 1.0}', flush=True)\nraise SystemExit('no memory left')\n"


@pytest.fixture
def turns(script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Return the module, with two works of its own."""
    (tmp_path / "works").mkdir()
    (tmp_path / "works" / "lives.py").write_text(LIVES)
    (tmp_path / "works" / "dies.py").write_text(DIES)
    module = script("turns")
    monkeypatch.setattr(module, "HERE", tmp_path)
    return module


def test_versions_are_those_of_the_others_environment_and_what_it_lacks_is_left_out(
    turns: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(turns, "PEERS", Path(sys.executable))  # ours, which has no lightly
    versions = turns.peer_versions()
    assert versions["torch"] == version("torch") and "lightly" not in versions
    monkeypatch.setattr(turns, "PEERS", tmp_path / "nothing")
    assert turns.peer_versions() == {}


def test_a_work_that_dies_is_left_out_and_the_others_go_on(turns: ModuleType) -> None:
    works = {"dies": turns.Work("dies.py"), "byol": turns.Work("lives.py")}
    answers = turns.in_turns(works, rounds=3, warm_up=1)
    assert answers == {"dies": [], "byol": [{"seconds": 2.0}] * 3}
    assert all(work.process.returncode is not None for work in works.values())


def test_a_work_that_dies_is_none_in_the_summary(turns: ModuleType) -> None:
    found = turns.summary({"byol": [2.0, 4.0, 6.0], "lightly": [4.0, 4.0, 4.0], "dies": []})
    assert found["seconds"] == {"byol": 4.0, "lightly": 4.0, "dies": None}
    assert found["byol_takes"] == {"lightly": 1.0, "dies": None}
    assert found["fastest_and_slowest"] == {"byol": [2.0, 6.0], "lightly": [4.0, 4.0], "dies": None}
    assert found["rounds"] == 3
    assert turns.summary({"byol": [], "lightly": [4.0]})["byol_takes"] == {"lightly": None}


def test_a_step_that_dies_is_recorded_as_such(turns: ModuleType, script: Script) -> None:
    step = script("step")
    step.works = lambda case, names, *more: {
        name: turns.Work("lives.py" if name == "byol, both directions at once" else "dies.py")
        for name in names
    }
    values = step.times("resnet18-32", rounds=2)
    assert {name for name, seconds in values["seconds"].items() if seconds} == {
        "byol, both directions at once"
    }
    assert values["byol_concatenated_takes"] == {"byol-pytorch": None}
    needed = step.compared_bytes({"byol": None, step.TOGETHER: 8})
    assert needed["byol_over_both_directions"] is None
