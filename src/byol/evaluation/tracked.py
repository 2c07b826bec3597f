"""Results as a run of MLflow, nested under the run of the pretraining."""

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from byol.config import EvaluateConfig
from byol.errors import UserError
from byol.evaluation.results import Result
from byol.rundir import RunDirectory
from byol.tracking import MLflowRun, known_mlflow_run, mlflow_address, require

Log = Callable[[Sequence[Result], Path | None], None]
"""Takes results, and the folder of their reports where some were written."""
_NO_PARAMETERS = ("data", "out", "logger", "tracking_uri", "experiment", "debug")
"""Settings that say nothing of how results came about; of data, their resolved name is logged."""


@contextmanager
def tracked(config: EvaluateConfig, run: RunDirectory | None) -> Iterator[Log]:
    """Start an MLflow run before anything is measured, give what logs results, and end the run.

    Args:
        config: its logger says whether; its other settings become parameters.
        run: the pretraining run, whose MLflow run is the parent where the server knows it.

    Raises:
        UserError: MLflow fails or cannot be reached.
    """
    if config.logger == "none":
        yield lambda results, folder: None
        return
    require("mlflow")
    mlflow_run = _started(config, run)
    try:
        mlflow_run.log_parameters(_parameters(config))
        yield partial(_log, mlflow_run)
        mlflow_run.finish("FINISHED")
    except BaseException as error:
        with suppress(UserError):
            mlflow_run.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def metrics_of(results: Sequence[Result]) -> Iterator[tuple[str, float, int]]:
    """Yield name, value and step of every metric.

    PROTOCOL/FEATURES/LABELS/METRIC is the value, or the mean over draws; beside a mean stand `.std`,
    and `.draws` with the number of the draw as step. MLflow takes no %: 1% is written 1pct.
    """
    values: dict[str, list[float]] = {}
    for result in results:
        labels = str(result.labels).replace("%", "pct")
        name = f"{result.name}/{result.features}/{labels}/{result.metric}"
        values.setdefault(name, []).append(result.value)
        if result.draw is not None:
            yield f"{name}.draws", result.value, result.draw
    for name, draws in values.items():
        yield name, statistics.fmean(draws), 0
        if len(draws) > 1:
            yield f"{name}.std", statistics.stdev(draws), 0


def _started(config: EvaluateConfig, run: RunDirectory | None) -> MLflowRun:
    """Return a new run: under the pretraining's, unless another server was named that does not know it."""
    known = None if run is None else known_mlflow_run(run)
    given = config.tracking_uri
    address = known[0] if known and given is None else mlflow_address(given, run)
    parent = None
    if known:
        try:
            parent = MLflowRun.reopen(address, known[1])
        except UserError:
            if address == known[0]:
                raise
    return MLflowRun.create(address, config.experiment, f"evaluate {config.protocol}", {}, parent)


def _parameters(config: EvaluateConfig) -> dict[str, Any]:
    values = vars(config).items()
    return {name: value for name, value in values if name not in _NO_PARAMETERS and value is not None}


def _log(mlflow_run: MLflowRun, results: Sequence[Result], folder: Path | None) -> None:
    mlflow_run.log_parameters({"data": results[0].data, "split": results[0].split})
    by_step: dict[int, dict[str, float]] = {}
    for name, value, step in metrics_of(results):
        by_step.setdefault(step, {})[name] = value
    for step, values in by_step.items():
        mlflow_run.log_metrics(values, step)
    records = [result.to_dict() for result in results]
    mlflow_run.log_text(json.dumps(records, indent=2) + "\n", "results.json")
    if folder is not None:
        mlflow_run.log_path(folder)
