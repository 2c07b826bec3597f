"""What is asked for: protocols and amounts of labels, checked before anything is opened."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from byol.config import EvaluateConfig
from byol.errors import UserError, require_known
from byol.evaluation import fcn
from byol.evaluation.finetune import EPOCHS, RATES
from byol.evaluation.linear import BATCH_SIZE
from byol.evaluation.supervised import Setting
from byol.settings import flag

DENSE = ("segmentation", "patch_knn")
"""Protocols that judge by masks rather than labels."""
PROTOCOLS = ("knn", "logistic", "linear", "online", "finetune", *DENSE)
HEADS = ("linear", "fcn")
ALL_LABELS = {
    "linear": "the linear probe chooses its learning rate on the hold-out, which few labels leave out",
    "online": "the online probe has learned from all labels",
}
"""Protocols that know no few labels, and why."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which numbers to measure."""

    protocols: tuple[str, ...]
    amounts: tuple[str | int, ...]
    """"all", numbers per class, or shares such as "1%"."""
    draws: int
    """How often few labels are drawn."""
    seed: int
    """Of all that is drawn: labels, cells, crops, the order of images, new heads, dropout."""
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
    finetune_batch_size: int
    """Images in a batch of fine-tuning at most."""
    heads: tuple[str, ...]
    """Of segmentation."""
    classes: tuple[str, ...] | None
    """Names of the classes in masks; None: what is known of the data."""
    void: int | None
    """The number of pixels without a class; None: what is known of the data."""

    @property
    def dense(self) -> bool:
        """Whether masks are what is judged by."""
        return self.protocols[0] in DENSE

    @property
    def chooses(self) -> bool:
        """Whether a protocol that judges by masks chooses settings; patch_knn fits nothing."""
        return "segmentation" in self.protocols

    def selections(self) -> list[tuple[str | int, int | None]]:
        """Return every amount of labels with each of its draws; None is the only one of all labels."""
        return [
            (amount, draw)
            for amount in self.amounts
            for draw in ((None,) if amount == "all" else range(self.draws))
        ]


def parsed_request(config: EvaluateConfig) -> Request:
    """Check what the user wrote; lists are separated by commas.

    Raises:
        UserError: a name or an amount is none, or they do not go together.
    """
    protocols = _known_names(config.protocol, "protocol", PROTOCOLS)
    amounts = tuple(dict.fromkeys(_amount(text) for text in _items(config.labels, "--labels")))
    _check_together(config, protocols, amounts)
    heads = HEADS if config.heads is None else _known_names(config.heads, "heads", HEADS)
    dense = protocols[0] in DENSE
    if dense and "fcn" not in heads:
        _refuse_given(config, ("finetune_rates", "finetune_epochs"), "for segmentation's head fcn only")
    return Request(
        protocols=protocols,
        amounts=amounts,
        draws=config.draws,
        seed=config.seed,
        augment=config.augment,
        metric=config.metric,
        transfer=config.transfer,
        grid=_grid(config, *((fcn.RATES, fcn.EPOCHS) if dense else (RATES, EPOCHS))),
        freeze=() if config.freeze is None else _distinct(config.freeze, "--freeze"),
        finetune_batch_size=config.finetune_batch_size or BATCH_SIZE,
        heads=heads,
        classes=None if config.classes is None else _class_names(config.classes),
        void=config.void,
    )


CONCERNS = {
    "augment": ("linear",),
    "transfer": ("logistic",),
    "finetune_rates": ("finetune", "segmentation"),
    "finetune_epochs": ("finetune", "segmentation"),
    "finetune_batch_size": ("finetune",),
    "freeze": ("finetune",),
    "save_networks": ("finetune",),
    "heads": ("segmentation",),
    "classes": DENSE,
    "void": DENSE,
}
"""Settings that concern some protocols only."""


def _check_together(
    config: EvaluateConfig, protocols: tuple[str, ...], amounts: tuple[str | int, ...]
) -> None:
    for name, concerned in CONCERNS.items():
        given = getattr(config, name) is not None and getattr(config, name) is not False  # 0 is a void
        if given and not {*concerned} & {*protocols}:
            raise UserError(f"{flag(name)} concerns --protocol {' or '.join(concerned)} only")
    if {*DENSE} & {*protocols}:
        _check_dense(config, protocols, amounts)
    for name, reason in ALL_LABELS.items():
        if name in protocols and "all" not in amounts:
            raise UserError(f"{reason}: use --protocol logistic, or add all to --labels")
    if config.transfer and amounts != ("all",):
        raise UserError(
            "--transfer chooses its l2 on the hold-out, which few labels leave out: use --labels all"
        )
    if config.report and "all" not in amounts:
        raise UserError("--report shows what comes of all labels: add all to --labels")


def _check_dense(config: EvaluateConfig, protocols: tuple[str, ...], amounts: tuple[str | int, ...]) -> None:
    if not {*protocols} <= {*DENSE}:
        raise UserError(
            f"{' and '.join(DENSE)} judge by masks, the other protocols by labels: ask for them in a command "
            "of their own"
        )
    if amounts != ("all",):
        raise UserError(f"{protocols[0]} learns from all masks: use --labels all")
    if config.void is not None and config.void > 255:
        raise UserError(f"void is {config.void}: masks hold numbers 0..255")
    _refuse_given(
        config, ("plot", "metric", "draws"), f"for protocols that judge by labels, not for {protocols[0]}"
    )
    if config.report and "segmentation" not in protocols:
        raise UserError("patch_knn has no report: leave --report out, or add segmentation to --protocol")


def _refuse_given(config: EvaluateConfig, names: Sequence[str], reason: str) -> None:
    for name in names:
        if getattr(config, name) != getattr(EvaluateConfig, name):
            raise UserError(f"{flag(name)} is {reason}")


def _class_names(text: str) -> tuple[str, ...]:
    names = tuple(_items(text, "--classes"))
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"--classes names '{name}' {names.count(name)} times: give each class its own name"
            )
    return names


def _grid(
    config: EvaluateConfig, natural_rates: Sequence[float], natural_epochs: Sequence[int]
) -> tuple[Setting, ...]:
    """Return every rate with every number of epochs."""
    rates = natural_rates if config.finetune_rates is None else _rates(config.finetune_rates)
    lengths = natural_epochs if config.finetune_epochs is None else _epochs(config.finetune_epochs)
    return tuple(Setting(rate, length) for rate in rates for length in lengths)


def _rates(text: str) -> tuple[float, ...]:
    items = _distinct(text, "--finetune-rates")
    if not all(
        re.fullmatch(r"[0-9]*\.?[0-9]+(e-?[0-9]+)?", item) and 0 < float(item) < 1e6 for item in items
    ):
        raise UserError(f"--finetune-rates takes learning rates above 0, such as 0.01,0.05, not '{text}'")
    return tuple(float(item) for item in items)


def _epochs(text: str) -> tuple[int, ...]:
    items = _distinct(text, "--finetune-epochs")
    if not all(re.fullmatch(r"[0-9]+", item) and int(item) > 0 for item in items):
        raise UserError(f"--finetune-epochs takes whole numbers above 0, such as 30,50, not '{text}'")
    return tuple(int(item) for item in items)


def _known_names(text: str, setting: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = _distinct(text, flag(setting))
    for name in names:
        require_known(setting.removesuffix("s"), name, known)
    return names


def _distinct(text: str, flag: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_items(text, flag)))


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
