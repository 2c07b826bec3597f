"""What is written of numbers is what is recorded of them."""

from collections.abc import Callable
from types import ModuleType


def test_pages_are_those_of_the_recorded_numbers(script: Callable[[str], ModuleType]) -> None:
    for file, text in script("report").pages().items():
        assert file.read_text() == text, f"{file.name} is older than the numbers: python benchmarks/report.py"


def test_comparing_places_takes_a_twentieth_of_the_memory(script: Callable[[str], ModuleType]) -> None:
    """Of the formulation with a value per channel and pair of places, at 14 x 14 places and 32 images."""
    measured = script("recorded").recorded("pixel_memory-cpu")
    assert measured["batch"] == 32
    times = {case["term"]: case["times_less_memory"] for case in measured["cases"] if case["side"] == 14}
    assert times.keys() == {"consistency", "contrast", "propagation"}
    assert min(times.values()) >= 20
