"""What is recorded beside numbers, and what a run of one case leaves as it was."""

import json
import subprocess
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

Script = Callable[[str], ModuleType]


def git(folder: Path, *words: str) -> str:
    """Run git in a folder."""
    who = ["-c", "user.name=name", "-c", "user.email=name@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_and_whether_code_has_changed(script: Script, tmp_path: Path) -> None:
    commit, folder = script("recorded").commit, tmp_path / "benchmarks"
    (folder / "results").mkdir(parents=True)
    (folder / "step.py").write_text("pass\n")
    assert commit(folder) is None
    git(tmp_path, "init")
    assert commit(folder) is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message", "first")
    head = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert commit(folder) == head
    (folder / "results" / "step.json").write_text("{}")
    assert commit(folder) == head
    (folder / "step.py").write_text("pass  # changed\n")
    assert commit(folder) == f"{head}-changed"


def test_a_file_copied_into_another_project_has_no_commit(script: Script, tmp_path: Path) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "--message", "theirs")
    (tmp_path / "benchmarks").mkdir()
    assert script("recorded").commit(tmp_path / "benchmarks") is None


def test_what_numbers_were_made_on_is_told_of_old_files_and_new(script: Script) -> None:
    recorded, tables = script("recorded"), script("tables")
    now = {"command": "python benchmarks/step.py", **recorded.made_on()}
    assert f"({torch.backends.cpu.get_cpu_capability()})" in tables.made_on(now)
    assert "commit 1234abc." in tables.made_on(now | {"commit": "1234abc"})
    old = {key: value for key, value in now.items() if key not in ("commit", "cpu_capability")}
    assert "commit" not in tables.made_on(old) and "None" not in tables.made_on(old | {"commit": None})


def test_one_case_is_added_to_the_others(script: Script, tmp_path: Path) -> None:
    recorded, file = script("recorded"), tmp_path / "step.json"
    recorded.record("step", "step.py", {"cases": {"small": 1, "large": 2}}, file)
    one = Namespace(case="large", out=file, quick=False)
    assert recorded.earlier_cases(one, "step") == {"small": 1}
    assert recorded.earlier_cases(Namespace(case=None, out=file, quick=False), "step") == {}
    assert recorded.earlier_cases(Namespace(case="large", out=tmp_path / "new", quick=False), "step") == {}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"processor": "another"}))
    with pytest.raises(SystemExit, match=r"step.json: .* another processor than this run: leave out --case"):
        recorded.earlier_cases(one, "step")
