"""Tracking services: MLflow runs, and what to do so that a service answers within seconds or not at all.

MLflow is spoken to through its own client. Lightning's logger for it would set the address for the
whole process and its environment, and evaluation, which knows no Lightning, records runs too.
"""

import importlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from byol.errors import UserError, one_line
from byol.rundir import RunDirectory

Status = Literal["FINISHED", "KILLED", "FAILED"]

# By default MLflow retries for minutes, reports its use to its makers and prints.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_TO_BEGIN = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Whoever starts a run waits for the answer."""
_TO_LOG = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""About 15 s where connections are refused: a server that is only restarted stops no run."""
_TO_UPLOAD = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4", "MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}

_SQLITE = "sqlite:///"
_LONGEST_PARAMETER = 6000
_LONGEST_TAG = 5000


class MLflowRun:
    """One run on an MLflow server or in a local store. Every method raises UserError where MLflow fails."""

    def __init__(self, address: str, client: Any, run: Any) -> None:
        """Take over a run of MLflow's client; see `create` and `reopen`."""
        self.address = address
        self.client = client
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.sent: set[tuple[str, int]] = set()
        """Names and steps of the metrics that MLflow has; none of them is sent twice."""

    @classmethod
    def create(
        cls, address: str, experiment: str, name: str, tags: Mapping[str, str], parent: Self | None = None
    ) -> Self:
        """Start a run.

        Args:
            address: of the server or store.
            experiment: made if it is missing; with a parent, the parent's is taken.
            name: of the run.
            tags: names and texts.
            parent: the run that this one is shown under.
        """
        with _reaching(address, _TO_BEGIN):
            client = _client(address)
            experiment_id = (
                _experiment_id(client, address, experiment) if parent is None else parent.experiment_id
            )
            all_tags = {key: text[:_LONGEST_TAG] for key, text in tags.items()}
            if parent is not None:
                all_tags["mlflow.parentRunId"] = parent.run_id
            return cls(address, client, client.create_run(experiment_id, tags=all_tags, run_name=name))

    @classmethod
    def reopen(cls, address: str, run_id: str) -> Self:
        """Return a run that is there, as it is."""
        with _reaching(address, _TO_BEGIN):
            client = _client(address)
            return cls(address, client, client.get_run(run_id))

    @property
    def place(self) -> str:
        """Where people find the run: a page of the server, or its id in a local store."""
        if _is_server(self.address):
            return f"{self.address.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"run {self.run_id} in {self.address}"

    def go_on(self) -> None:
        """Let a run that ended run again, and find out what it has."""
        with _reaching(self.address, _TO_LOG):
            self.client.update_run(self.run_id, status="RUNNING")
            for name in self.client.get_run(self.run_id).data.metrics:
                history = self.client.get_metric_history(self.run_id, name)
                self.sent |= {(name, metric.step) for metric in history}

    def log_parameters(self, values: Mapping[str, Any]) -> None:
        """Log settings as texts, at most 100; None is left out."""
        from mlflow.entities import Param

        texts = {name: str(value)[:_LONGEST_PARAMETER] for name, value in values.items() if value is not None}
        with _reaching(self.address, _TO_LOG):
            self.client.log_batch(self.run_id, params=[Param(name, text) for name, text in texts.items()])

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        missing = {name: value for name, value in values.items() if (name, step) not in self.sent}
        if missing:
            with _reaching(self.address, _TO_LOG):
                metrics = [Metric(name, value, now, step) for name, value in missing.items()]
                self.client.log_batch(self.run_id, metrics=metrics)
            self.sent |= {(name, step) for name in missing}

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as an artifact of this name."""
        with _reaching(self.address, _TO_UPLOAD):
            self.client.log_text(self.run_id, text, name)

    def log_path(self, path: Path) -> None:
        """Keep a file, or a folder under its own name, as artifacts."""
        with _reaching(self.address, _TO_UPLOAD):
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), path.name)
            else:
                self.client.log_artifact(self.run_id, str(path))

    def finish(self, status: Status) -> None:
        """End the run."""
        with _reaching(self.address, _TO_LOG):
            self.client.set_terminated(self.run_id, status)


def mlflow_address(uri: str | None, run: RunDirectory | None) -> str:
    """Return the address of the server or store: the given one, else MLflow's own variable's, else a
    store in the run directory (MLflow's default is the current directory).

    Raises:
        UserError: there is none of these.
    """
    if uri := uri or os.environ.get("MLFLOW_TRACKING_URI"):
        path = _sqlite_path(uri)
        return uri if path is None else f"{_SQLITE}{path}"
    if run is None:
        raise UserError("--logger mlflow: name the server with --tracking-uri, or in MLFLOW_TRACKING_URI")
    return own_store(run)


def own_store(run: RunDirectory) -> str:
    """Return the address of the store in a run directory."""
    return f"{_SQLITE}{run.mlflow_store.absolute()}"


def known_mlflow_run(run: RunDirectory) -> tuple[str, str] | None:
    """Return address and id of the MLflow run that records a run, or None where none does."""
    known = run.tracking().get("mlflow")
    if known is None:
        return None
    return known["tracking_uri"] or own_store(run), known["run_id"]


def note_mlflow_run(run: RunDirectory, mlflow_run: MLflowRun) -> None:
    """Note in the run directory which MLflow run records it; its own store moves with it."""
    uri = None if mlflow_run.address == own_store(run) else mlflow_run.address
    run.write_tracking("mlflow", {"tracking_uri": uri, "run_id": mlflow_run.run_id})


def check_server(address: str) -> None:
    """Raise UserError unless the MLflow server at this address answers; a local store always does."""
    if _is_server(address):
        with _reaching(address, _TO_BEGIN):
            _client(address).search_experiments(max_results=1)


def require(package: str) -> Any:
    """Return the package of an extra of the same name, imported.

    Raises:
        UserError: it is not installed.
    """
    try:
        with environment_defaults(_QUIET):
            return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise UserError(f"--logger {package} needs an extra: pip install 'byol[{package}]'") from error


@contextmanager
def telling(service: str) -> Iterator[None]:
    """Turn whatever goes wrong with a tracking service into a UserError that names the first cause."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a foreign library over a network: there is no list of what it raises
        cause: BaseException = error
        while (earlier := cause.__cause__ or cause.__context__) is not None:
            cause = earlier
        reason = one_line(cause)[:300].rstrip(".")
        raise UserError(f"{service} failed or cannot be reached: {reason}") from error


@contextmanager
def environment_defaults(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while, those that the user has not set."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _reaching(address: str, patience: Mapping[str, str]) -> Iterator[None]:
    with environment_defaults({**_QUIET, **patience}), telling(f"MLflow at {address}"):
        yield


def _client(address: str) -> Any:
    path = _sqlite_path(address)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as store:  # MLflow tries for minutes to open what it cannot
            store.execute("PRAGMA schema_version")
    return require("mlflow").MlflowClient(address)


def _experiment_id(client: Any, address: str, name: str) -> str:
    """Return the id of the experiment of this name; make it where there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        path = _sqlite_path(address)
        # Else MLflow would put a local store's artifacts into the current directory.
        location = None if path is None else str(path.parent / "artifacts")
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except Exception:  # another run has just made it
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _is_server(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _sqlite_path(uri: str) -> Path | None:
    """Return the absolute file of a SQLite address, None for any other."""
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None
