"""Where metrics go beside metrics.jsonl, and what happens when a service there fails."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from byol.config import PretrainConfig, logger_names
from byol.errors import UserError
from byol.rundir import RunDirectory
from byol.tracking import (
    MLflowRun,
    Status,
    check_server,
    environment_defaults,
    known_mlflow_run,
    mlflow_address,
    note_mlflow_run,
    require,
    telling,
)

_WANDB = "Weights & Biases"
_WANDB_SECONDS = 10
"""To wait for an answer when a run starts."""


class Logger(Protocol):
    """One place where metrics go."""

    def begin(self, settings: Mapping[str, Any], tags: Mapping[str, str]) -> str | None:
        """Start or go on; return where the run is found, where that is worth telling."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Take in a record of metrics.jsonl."""

    def finish(self, status: Status) -> None:
        """Take in what is left to keep, and end."""


class TensorBoard:
    """Event files in the run directory."""

    def __init__(self, config: PretrainConfig, run: RunDirectory) -> None:
        # A run that goes on repeats the steps behind its checkpoint; what was written of them is dropped.
        records = run.metrics()
        next_step = records[-1]["step"] + 1 if records else 0
        self.logger = TensorBoardLogger(run.path, name="tensorboard", version="", purge_step=next_step)

    def begin(self, settings: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Write nothing yet."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Add scalars."""
        self.logger.log_metrics(dict(values), step)

    def finish(self, status: Status) -> None:
        """Write what is in memory."""
        self.logger.finalize("success" if status == "FINISHED" else "failed")


class MLflow:
    """An MLflow run, the same one after resuming."""

    def __init__(self, config: PretrainConfig, run: RunDirectory) -> None:
        self.config = config
        self.run = run
        self.mlflow_run: MLflowRun | None = None

    def begin(self, settings: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Start a run with settings as parameters; or go on with the one that the run directory names.

        Records that did not arrive, since the server was away, are sent now.
        """
        known = known_mlflow_run(self.run)
        if known is None:
            address = mlflow_address(self.config.tracking_uri, self.run)
            self.mlflow_run = MLflowRun.create(
                address, self.config.experiment, _run_name(self.config, self.run), tags
            )
            self.mlflow_run.log_parameters(settings)
            note_mlflow_run(self.run, self.mlflow_run)
        else:
            self.mlflow_run = MLflowRun.reopen(*known)
            self.mlflow_run.go_on()
        for record in self.run.metrics():
            self.log_metrics(numbers(record), record["step"])
        return f"MLflow: {self.mlflow_run.place}"

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Send one batch of metrics."""
        assert self.mlflow_run is not None
        self.mlflow_run.log_metrics(values, step)

    def finish(self, status: Status) -> None:
        """Keep the bundle, the pictures and the settings as artifacts, and end the run."""
        if self.mlflow_run is None:
            return
        for path in (self.run.model, self.run.views_picture, self.run.config_file):
            if path.exists():
                self.mlflow_run.log_path(path)
        self.mlflow_run.finish(status)


class WeightsAndBiases:
    """A W&B run, the same one after resuming; everything local stays in the run directory."""

    def __init__(self, config: PretrainConfig, run: RunDirectory) -> None:
        self.config = config
        self.run = run
        self.logger: WandbLogger | None = None
        folder = str(run.path.absolute() / "wandb" / "cache")
        self.folders = {"WANDB_CACHE_DIR": folder, "WANDB_DATA_DIR": folder}

    def begin(self, settings: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Start a run, or go on with the one that the run directory names; W&B tells where it is."""
        wandb = require("wandb")
        known = self.run.tracking().get("wandb", {})
        with environment_defaults(self.folders), telling(_WANDB):
            self.logger = WandbLogger(
                project=self.config.experiment,
                name=_run_name(self.config, self.run),
                save_dir=str(self.run.path),
                id=known.get("run_id"),
                settings=wandb.Settings(console="off", quiet=True, init_timeout=_WANDB_SECONDS),
            )
            self.logger.log_hyperparams({**settings, "environment": dict(tags)})
            self.run.write_tracking("wandb", {"run_id": self.logger.experiment.id})

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Hand the metrics to W&B, which sends them in the background."""
        assert self.logger is not None
        with telling(_WANDB):
            self.logger.log_metrics(values, step)

    def finish(self, status: Status) -> None:
        """Keep bundle and pictures, and wait until everything is sent."""
        if self.logger is None:
            return
        wandb = require("wandb")
        with environment_defaults(self.folders), telling(_WANDB):
            experiment = self.logger.experiment
            if self.run.model.is_dir():
                artifact = wandb.Artifact(f"model-{experiment.id}", type="model")
                artifact.add_dir(str(self.run.model))
                experiment.log_artifact(artifact)
            if self.run.views_picture.is_file():
                self.logger.log_image("views", [str(self.run.views_picture)])
            experiment.finish(exit_code=0 if status == "FINISHED" else 1)


_KINDS: dict[str, Callable[[PretrainConfig, RunDirectory], Logger]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


class Loggers:
    """All loggers of a run. Where a service fails, the run stops or goes on without it, as the user chose."""

    def __init__(self, config: PretrainConfig, run: RunDirectory, say: Callable[[str], None]) -> None:
        """Open nothing yet; `say` shows a line to the user."""
        self.config = config
        self.run = run
        self.say = say
        self.loggers: dict[str, Logger] = {}
        """Empty before `begin`, which only the first process calls, and after `finish`."""
        self.begun = False

    def begin(self, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Start every logger, or let it go on with what it has of this run.

        Args:
            settings: of the run, resolved.
            environment: as in env.json.

        Raises:
            UserError: a service fails, and that is to stop the run.
        """
        self.loggers = {
            name: _KINDS[name](self.config, self.run) for name in logger_names(self.config.logger)
        }
        tags = _tags(environment, self.run)

        def begin(logger: Logger) -> None:
            if place := logger.begin(settings, tags):
                self.say(place)

        self._each(begin)
        self.begun = True

    def log(self, record: Mapping[str, Any]) -> None:
        """Take in a record of metrics.jsonl; see `begin` for what is raised."""
        values = numbers(record)
        self._each(lambda logger: logger.log_metrics(values, record["step"]))

    def finish(self, status: Status) -> None:
        """End everywhere; see `begin` for what is raised, and only where the run itself went well."""
        ending, self.loggers = self.loggers, {}  # each ends once, also where another one fails
        self._each(lambda logger: logger.finish(status), ending, may_stop=status == "FINISHED")

    def _each(
        self, act: Callable[[Logger], None], loggers: dict[str, Logger] | None = None, may_stop: bool = True
    ) -> None:
        """Do something with all loggers; tell what fails, after the others have had their turn."""
        failed = None
        for name, logger in list((self.loggers if loggers is None else loggers).items()):
            try:
                act(logger)
            except UserError as error:
                self.loggers.pop(name, None)  # it has failed for good, also while the run ends
                if may_stop and self.config.logger_on_error == "stop":
                    failed = failed or error
                else:
                    self.say(f"warning: {error}; going on without it")
            except KeyboardInterrupt:  # a signal ends the wait for one service, as the session arranges it
                self.say(f"warning: no longer waiting for {name}")
        if failed is not None:
            raise UserError(f"{failed}. {self._remedy()}") from failed

    def _remedy(self) -> str:
        if self.begun:
            return f"The run is saved; continue: byol pretrain --resume {self.run.path}"
        return without_it(self.run)


def check_loggers(config: PretrainConfig, run: RunDirectory) -> None:
    """Find out before the data are read what would stop the run after.

    Raises:
        UserError: a package is missing, or a server that must answer does not.
    """
    names = logger_names(config.logger)
    for package in ("mlflow", "wandb"):
        if package in names:
            require(package)
    if "mlflow" in names and config.logger_on_error == "stop":
        known = known_mlflow_run(run)
        try:
            check_server(known[0] if known else mlflow_address(config.tracking_uri, run))
        except UserError as error:
            raise UserError(f"{error}. {without_it(run)}") from error


def without_it(run: RunDirectory) -> str:
    """Return how to train without a service that fails."""
    if run.last_checkpoint.is_file():
        return f"To go on without it, write logger_on_error: warn in {run.config_file}"
    return "To train without it: --logger-on-error warn"


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record of metrics.jsonl, without its step."""
    return {name: float(value) for name, value in record.items() if name != "step" and value is not None}


def _tags(environment: Mapping[str, Any], run: RunDirectory) -> dict[str, str]:
    """Return the environment as texts: a tag for the version of each package."""
    versions = {f"version.{name}": version for name, version in environment["versions"].items()}
    others = {name: value for name, value in environment.items() if name != "versions" and value}
    texts = {name: _text(value) for name, value in others.items()}
    return {**versions, **texts, "run_directory": str(run.path.absolute())}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _run_name(config: PretrainConfig, run: RunDirectory) -> str:
    return config.run_name or run.path.absolute().name
