"""What is written of numbers is what is recorded of them."""

from collections.abc import Callable
from types import ModuleType


def test_pages_are_those_of_the_recorded_numbers(script: Callable[[str], ModuleType]) -> None:
    for file, text in script("report").pages().items():
        assert file.read_text() == text, f"{file.name} is older than the numbers: python benchmarks/report.py"
