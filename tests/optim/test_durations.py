"""Durations in any unit, resolved to optimizer steps."""

import pytest

from byol.duration import steps_of
from byol.errors import UserError


@pytest.mark.parametrize(
    "text", ["", "ep", "-1", "10 epochs", "5 %", "1e3", "5%ep", "1.", ".5", "ten", "nan"]
)
def test_what_cannot(text: str) -> None:
    with pytest.raises(UserError, match=f"warmup is '{text}': give epochs"):
        steps_of(text, "warmup", 7, 700)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("100", 700),
        ("100ep", 700),
        (" 3 ", 21),
        ("0.5ep", 4),
        ("0.01ep", 1),
        ("500st", 500),
        ("5%", 35),
        ("2.5%", 18),
        ("1.2%", 8),
        ("0.1%", 1),
        ("100%", 700),
        ("0", 0),
        ("0st", 0),
        ("0%", 0),
    ],
)
def test_seven_steps_an_epoch_for_a_hundred_epochs(text: str, steps: int) -> None:
    assert steps_of(text, "warmup", 7, 700) == steps


def test_the_length_of_a_run_is_no_share_of_itself() -> None:
    with pytest.raises(UserError, match="cannot be a share of itself"):
        steps_of("5%", "epochs", 7)
