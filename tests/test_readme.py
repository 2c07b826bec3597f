"""Every fenced command of the README, and of the page that follows on from it, runs as it is, but make."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/using.md")


def fenced() -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block."""
    text = "".join((ROOT / page).read_text() for page in PAGES)
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def words_of(language: str, block: str) -> list[list[str]]:
    """Return the commands of a block, each as the words to start."""
    if language == "python":
        return [[sys.executable, "-c", block]]
    lines = [line for line in block.splitlines() if line and not line.startswith("make ")]
    assert all(line.startswith("byol ") for line in lines), block
    return [[sys.executable, "-m", *line.split()] for line in lines]


def test_the_readme_has_what_it_promises() -> None:
    commands = [words for language, block in fenced() for words in words_of(language, block)]
    assert len(commands) >= 12


@pytest.mark.slow
def test_fenced_commands_run(photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs, tmp_path / "my_images")
    for language, block in fenced():
        for words in words_of(language, block):
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (words, done.stderr)
