"""Scripts of benchmarks/ as modules, and small: no other libraries, one thread and process, no repetition."""

import gc
import importlib
import io
import json
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Return a function that imports a script by its name, anew in every test."""
    monkeypatch.syspath_prepend(BENCHMARKS / "works")
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


class WorkInThisProcess:
    """Runs a script of `works/` from its beginning for every turn."""

    def __init__(self, name: str, *arguments: str, peers: bool = False) -> None:
        assert not peers
        self.file = BENCHMARKS / "works" / name
        self.arguments = arguments

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def once(self) -> dict[str, Any]:
        """Return what it answers to one line."""
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as answers:
            patch.setattr(sys, "argv", [str(self.file), *self.arguments])
            patch.setattr(sys, "stdin", io.StringIO("\n"))
            gc.freeze()  # a process of its own would not have what a collection looks through here
            try:
                runpy.run_path(str(self.file), run_name="__main__")
            finally:
                gc.unfreeze()
        answer: dict[str, Any] = json.loads(answers.getvalue())
        return answer


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: Callable[[str], ModuleType]) -> None:
    """Make everything that is imported from here on do little."""
    turns, floors = script("turns"), script("floors")
    fastest = floors.fastest
    monkeypatch.setattr(turns, "PEERS", tmp_path / "nothing")
    monkeypatch.setattr(turns, "Work", WorkInThisProcess)
    monkeypatch.setattr(script("turn"), "set_up_torch", lambda count: None)
    monkeypatch.setattr(floors, "fastest", lambda work, times=1: fastest(work, min(times, 3)))
