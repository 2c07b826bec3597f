"""What is asked for: protocols and amounts of labels, checked before anything is opened."""

import re
from dataclasses import dataclass

from byol.errors import UserError, unknown

PROTOCOLS = ("knn", "logistic", "linear")


@dataclass(frozen=True)
class Request:
    """Which numbers to measure."""

    protocols: tuple[str, ...]
    amounts: tuple[str | int, ...]
    """"all", numbers per class, or shares such as "1%"."""
    draws: int
    """How often few labels are drawn."""
    seed: int
    """Of the draws, and of the probe's order."""
    augment: bool
    """Crop and flip while the linear probe is trained."""


def parsed_request(
    protocol: str, labels: str | int, draws: int = 5, seed: int = 0, augment: bool = False
) -> Request:
    """Check what the user wrote; both lists are separated by commas.

    Raises:
        UserError: a name or an amount is none, or they do not go together.
    """
    protocols = tuple(dict.fromkeys(_items(protocol, "--protocol")))
    for name in protocols:
        if name not in PROTOCOLS:
            raise unknown("protocol", name, PROTOCOLS)
    amounts = tuple(dict.fromkeys(_amount(text) for text in _items(str(labels), "--labels")))
    if draws < 1:
        raise UserError(f"--draws must be at least 1, not {draws}")
    if seed < 0:
        raise UserError(f"--seed must not be negative, but is {seed}")
    if "linear" in protocols and "all" not in amounts:
        raise UserError(
            "the linear probe chooses its learning rate on the hold-out, which few labels leave out: "
            "use --protocol logistic, or add all to --labels"
        )
    if augment and "linear" not in protocols:
        raise UserError("--augment concerns --protocol linear only")
    return Request(protocols, amounts, draws, seed, augment)


def _items(text: str, flag: str) -> list[str]:
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise UserError(f"{flag} is empty")
    return items


def _amount(text: str) -> str | int:
    if text == "all":
        return text
    if re.fullmatch(r"[0-9]+", text) and int(text) > 0:
        return int(text)
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?%", text) and 0 < float(text[:-1]) <= 100:
        return text
    raise UserError(f"--labels takes all, a number per class such as 5, or a share such as 1%, not '{text}'")
