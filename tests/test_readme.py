"""Every fenced command of the README, and of the page that follows on from it, runs, but make.

Commands are as they stand, of smaller sizes: `SMALLER` says which. How well the README's recipe learns with
all of its epochs is for the demo's test to say: tests/reporting/test_demonstration.py trains the same one.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from byol.cli import main

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/using.md")
# Flags and what becomes of their values.
SMALLER = {"--epochs": "2", "--image-size": "32", "--finetune-epochs": "2"}


def fenced() -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block."""
    text = "".join((ROOT / page).read_text() for page in PAGES)
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands_of(block: str) -> list[list[str]]:
    """Return the command lines of a block, each as its words after `byol`."""
    lines = [line for line in block.splitlines() if line and not line.startswith("make ")]
    assert all(line.startswith("byol ") for line in lines), block
    return [line.split()[1:] for line in lines]


def smaller(words: list[str]) -> list[str]:
    """Return a command of smaller sizes; without a length of its own a pretraining has its recipe's."""
    has_length = words[0] != "pretrain" or "--epochs" in words or "--resume" in words
    added = [] if has_length else ["--epochs", ""]
    words = [*words, *added]
    return [SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)]


def test_the_readme_has_what_it_promises() -> None:
    count = sum(1 if language == "python" else len(commands_of(block)) for language, block in fenced())
    assert count >= 12


@pytest.mark.slow
def test_fenced_commands_run(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has imported everything; the first command in one of its own."""
    shutil.copytree(photographs, tmp_path / "my_images")
    monkeypatch.chdir(tmp_path)
    started = False
    for language, block in fenced():
        if language == "python":
            exec(compile(block, block, "exec"), {"__name__": "__main__"})
            continue
        for words in map(smaller, commands_of(block)):
            if started:
                assert main(words) == 0, words
            else:
                command = [sys.executable, "-m", "byol", *words]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert done.returncode == 0, (words, done.stderr)
                started = True
