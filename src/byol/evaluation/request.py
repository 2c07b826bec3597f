"""What is asked for: protocols and amounts of labels, checked before anything is opened."""

import re
from dataclasses import dataclass

from byol.errors import UserError, unknown
from byol.evaluation.finetune import EPOCHS, RATES
from byol.evaluation.problem import METRICS
from byol.evaluation.supervised import Setting

PROTOCOLS = ("knn", "logistic", "linear", "finetune")


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
    metric: str
    """By which settings are chosen: a name in `METRICS`."""
    transfer: bool
    """Logistic regression as in BYOL's transfer protocol."""
    grid: tuple[Setting, ...]
    """Settings that fine-tuning tries."""
    freeze: tuple[str, ...]
    """Sub-modules of the network that fine-tuning leaves as they are."""


def parsed_request(
    protocol: str,
    labels: str | int,
    draws: int = 5,
    seed: int = 0,
    augment: bool = False,
    *,
    metric: str = "top1",
    transfer: bool = False,
    finetune_rates: str | float | None = None,
    finetune_epochs: str | int | None = None,
    freeze: str | None = None,
) -> Request:
    """Check what the user wrote; lists are separated by commas.

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
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if transfer:
        _check_transfer(protocols, amounts)
    asked = {
        "--finetune-rates": finetune_rates,
        "--finetune-epochs": finetune_epochs,
        "--freeze": freeze,
    }
    for flag, value in asked.items():
        if value is not None and "finetune" not in protocols:
            raise UserError(f"{flag} concerns --protocol finetune only")
    frozen = () if freeze is None else tuple(dict.fromkeys(_items(freeze, "--freeze")))
    grid = _grid(finetune_rates, finetune_epochs)
    return Request(protocols, amounts, draws, seed, augment, metric, transfer, grid, frozen)


def _check_transfer(protocols: tuple[str, ...], amounts: tuple[str | int, ...]) -> None:
    if "logistic" not in protocols:
        raise UserError("--transfer concerns --protocol logistic only")
    if amounts != ("all",):
        raise UserError(
            "--transfer chooses its l2 on the hold-out, which few labels leave out: use --labels all"
        )


def _grid(rates: str | float | None, epochs: str | int | None) -> tuple[Setting, ...]:
    """Return every rate with every number of epochs; None: those of the paper."""
    lengths = EPOCHS if epochs is None else _epochs(str(epochs))
    return tuple(
        Setting(rate, length)
        for rate in (RATES if rates is None else _rates(str(rates)))
        for length in lengths
    )


def _rates(text: str) -> tuple[float, ...]:
    items = tuple(dict.fromkeys(_items(text, "--finetune-rates")))
    if not all(
        re.fullmatch(r"[0-9]*\.?[0-9]+(e-?[0-9]+)?", item) and 0 < float(item) < 1e6 for item in items
    ):
        raise UserError(f"--finetune-rates takes learning rates above 0, such as 0.01,0.05, not '{text}'")
    return tuple(float(item) for item in items)


def _epochs(text: str) -> tuple[int, ...]:
    items = tuple(dict.fromkeys(_items(text, "--finetune-epochs")))
    if not all(re.fullmatch(r"[0-9]+", item) and int(item) > 0 for item in items):
        raise UserError(f"--finetune-epochs takes whole numbers above 0, such as 30,50, not '{text}'")
    return tuple(int(item) for item in items)


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
