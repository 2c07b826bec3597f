"""Every fenced command of the README, and of the pages for one's own images, runs, but make.

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
PAGES = (("README.md", "docs/using.md"), ("docs/photographs.md",))
"""Pages that follow on from one another."""
# Flags and what becomes of their values.
SMALLER = {"--epochs": "2", "--image-size": "32", "--batch-size": "16", "--finetune-epochs": "2"}
# The README's have the recipe's backbone; those of the other page timm's for tests, in a fifth of the time.
SMALL_NETWORK = ["--backbone", "test_resnet", "--projection-hidden-size", "32"]


def fenced(pages: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block, but those that are plain text."""
    text = "".join((ROOT / page).read_text() for page in pages)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [(language, block) for language, block in blocks if language != "text"]


def commands_of(block: str) -> list[list[str]]:
    """Return the command lines of a block, each as its words after `byol`."""
    lines = [line for line in block.splitlines() if line and not line.startswith("make ")]
    assert all(line.startswith("byol ") for line in lines), block
    return [line.split()[1:] for line in lines]


def smaller(words: list[str]) -> list[str]:
    """Return a command of smaller sizes; what a pretraining takes from its recipe or its data is added."""
    needed = ["--epochs"] if words[0] == "pretrain" and "--resume" not in words else []
    needed += ["--image-size", "--batch-size"] if needed and "folder:my_images" in words else []
    words = [*words, *(word for name in needed if name not in words for word in (name, ""))]
    return [SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)]


def test_the_pages_have_what_they_promise() -> None:
    blocks = [found for pages in PAGES for found in fenced(pages)]
    count = sum(1 if language == "python" else len(commands_of(block)) for language, block in blocks)
    assert count >= 18


@pytest.mark.slow
@pytest.mark.parametrize("pages", PAGES)
def test_fenced_commands_run(
    pages: tuple[str, ...], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, which has imported everything; the README's first command in one of its own."""
    shutil.copytree(photographs, tmp_path / "my_images")
    for split, names in (("train", "[01]?.png"), ("test", "2?.png")):
        for path in photographs.glob(f"*/{names}"):
            labelled = tmp_path / "labelled" / split / path.parent.name / path.name
            labelled.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, labelled)
    monkeypatch.chdir(tmp_path)
    started = pages != PAGES[0]
    for language, block in fenced(pages):
        if language == "python":
            exec(compile(block, block, "exec"), {"__name__": "__main__"})
            continue
        for words in map(smaller, commands_of(block)):
            words += SMALL_NETWORK if words[0] == "pretrain" and pages != PAGES[0] else []
            if started:
                assert main(words) == 0, words
            else:
                command = [sys.executable, "-m", "byol", *words]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert done.returncode == 0, (words, done.stderr)
                started = True
