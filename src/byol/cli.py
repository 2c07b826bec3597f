"""The command `byol`. Nothing heavy is imported before a command needs it."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from byol.errors import UserError, closest, one_line
from byol.machine import available_cores, visible_cores

_USAGE = """\
usage: byol COMMAND [...]

Turn unlabelled images into a backbone (Bootstrap Your Own Latent, arXiv 2006.07733).

commands:
  demo       pretrain on handwritten digits, evaluate, draw a picture: minutes on a CPU
  pretrain   train a backbone on images without labels
  evaluate   measure a trained backbone: kNN, logistic regression, linear probe, fine-tuning,
             segmentation
  embed      write the vectors of images to a file
  recipes    list the packaged settings, or show one

byol COMMAND --help tells the flags of a command; byol --version the version.
"""


_PRETRAIN_SECTIONS = {
    "data": "Data and place",
    "method": "Method and network",
    "image_size": "Views",
    "batch_size": "Length, batch and optimizer",
    "tau": "Target and loss",
    "feature_layer": "Dense features (pixpro, pixcontrast)",
    "holdout": "Watching and saving",
    "logger": "Where metrics go",
    "seed": "Machine",
}
"""Titles in the help, by the first setting of each section in the order of `PretrainConfig`."""
_PRETRAIN_EXTRA = """
Beside the settings:
  --recipe NAME   Packaged settings (byol recipes lists them).
  --config FILE   Settings in YAML, such as a run's config.yaml; they beat the recipe's, flags beat both.
  --resume RUN    Go on with a run; beside it only --devices, --nodes and --num-workers.
"""

_MEMORY_FULL = (
    "the GPU's memory is full: --precision bf16 takes less, and when fine-tuning a smaller "
    "--finetune-batch-size; --device cpu needs none"
)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 2 for an error, 128 + n for a signal n."""
    words = list(sys.argv[1:] if words is None else words)
    _limit_threads()
    try:
        return _run(words)
    except BrokenPipeError:
        return 141
    except (UserError, OSError, RuntimeError) as error:
        message = _message(error)
        if "--debug" in words or message is None:
            raise
        if not getattr(error, "is_told", False):
            print("byol: error:", message, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("byol: stopped", file=sys.stderr)
        return 130


def _limit_threads() -> None:
    """Have PyTorch, which is yet to come, start no more threads than a container's time is worth: it counts
    cores, and threads that wait for one another in vain halve its speed, or worse."""
    if available_cores() < visible_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))


def _message(error: UserError | OSError | RuntimeError) -> str | None:
    """Return what to say of an error, in one line; None where it is a mistake of ours."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, not imported here
        return _MEMORY_FULL
    if "torch" in sys.modules and not isinstance(error, UserError):
        from byol.data.workers import lost_worker_message

        if (message := lost_worker_message(error)) is not None:
            return message
    # One line, also where the message quotes a library's.
    return None if isinstance(error, RuntimeError) else one_line(error)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_USAGE, end="")
        return 0
    if words[0] == "--version":
        from byol import __version__

        print(f"byol {__version__}")
        return 0
    command, rest = words[0], words[1:]
    if command not in _COMMANDS:
        raise UserError(f"unknown command '{command}'.{closest(command, _COMMANDS)} See byol --help")
    return _COMMANDS[command](rest)


def _demo(words: list[str]) -> int:
    from byol.config import DemoConfig

    settings = _flags(DemoConfig, words, "byol demo [flags]")
    if settings is None:
        return 0
    from byol.reporting.demonstration import demo
    from byol.training.errors import Interrupted

    try:
        demo(**settings)
    except Interrupted as stopped:
        print(f"byol: {stopped}", file=sys.stderr)
        return stopped.exit_status
    return 0


def _pretrain(words: list[str]) -> int:
    from byol.config import PretrainConfig
    from byol.settings import help_text, read_flags

    if _asks_for_help(words):
        usage = "byol pretrain [--recipe NAME] [--config FILE] [--resume RUN] [flags]"
        print(help_text(PretrainConfig, usage, _PRETRAIN_SECTIONS) + _PRETRAIN_EXTRA)
        return 0
    flags = read_flags(PretrainConfig, words, extra=("recipe", "config", "resume"))
    from byol.training.errors import Interrupted
    from byol.training.processes import is_first_process
    from byol.training.run import pretrain

    try:
        run = pretrain(**flags)
    except Interrupted as stopped:
        if not is_first_process():
            return 0  # torchrun kills the first process as soon as another one fails
        print(f"byol: {stopped}", file=sys.stderr)
        return stopped.exit_status
    if is_first_process():
        then = f"evaluate {run.path}" if run.labelled else f"embed {run.path} --out vectors.parquet"
        if run.masked and not run.labelled:
            then = f"evaluate {run.path} --protocol segmentation"
        print(f"run directory: {run.path}\nnext: byol {then}")
    return 0


def _evaluate(words: list[str]) -> int:
    from byol.config import EvaluateConfig

    settings = _flags(EvaluateConfig, words, "byol evaluate RUN|BUNDLE|FILE|NETWORK [flags]")
    if settings is None:
        return 0
    from byol.evaluation.outputs import outputs_of
    from byol.evaluation.results import print_table, shown_metrics
    from byol.evaluation.run import evaluate

    results, config = evaluate(**settings), EvaluateConfig(**settings)
    for metric in shown_metrics(results, config.metric):
        print_table(results, metric)
    outputs = outputs_of(config)
    for name, folder in (("reports", outputs.reports), ("networks", outputs.networks)):
        if folder is not None:
            print(f"{name}: {folder}")
    return 0


def _embed(words: list[str]) -> int:
    from byol.config import EmbedConfig

    settings = _flags(EmbedConfig, words, "byol embed RUN|BUNDLE|FILE --out FILE [flags]")
    if settings is None:
        return 0
    from byol.evaluation.embedding import embed

    print(f"vectors: {embed(**settings)}")
    return 0


def _recipes(words: list[str]) -> int:
    from byol.settings import recipe_names, recipe_text

    if _asks_for_help(words):
        print("usage: byol recipes [NAME]\n\nList the packaged recipes, or print one.")
        return 0
    if len(words) > 1:
        raise UserError("byol recipes takes one name, or none for the list")
    if words:
        print(recipe_text(words[0]), end="")
        return 0
    width = max(map(len, recipe_names()))
    for name in recipe_names():
        headline = recipe_text(name).splitlines()[0].removeprefix("# ")
        print(f"{name:{width}} {headline}")
    return 0


def _flags(kind: Any, words: list[str], usage: str) -> dict[str, Any] | None:
    """Return the settings that were given, but for --debug; None after printing the command's help."""
    from dataclasses import MISSING, fields

    from byol.settings import help_text, read_flags, settings_from

    if _asks_for_help(words):
        print(help_text(kind, usage))
        return None
    flags = read_flags(kind, words)
    for field in fields(kind):
        if field.default is MISSING and field.name not in flags:
            missing = "the run, bundle or weights file" if field.name == "target" else "--out"
            raise UserError(f"{missing} is missing: {usage}")
    config = settings_from(kind, flags)
    return {name: getattr(config, name) for name in flags if name != "debug"}


def _asks_for_help(words: Sequence[str]) -> bool:
    return "-h" in words or "--help" in words


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": _demo,
    "pretrain": _pretrain,
    "evaluate": _evaluate,
    "embed": _embed,
    "recipes": _recipes,
}
