"""The run directory: the names of the files that several parts share, and how they are read and written."""

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from byol.errors import UserError


class RunDirectory:
    """Paths and files of one run. Constructing it touches nothing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.environment_file = self.path / "env.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.results_file = self.path / "results.json"
        self.tracking_file = self.path / "tracking.json"
        self.views_picture = self.path / "views.png"
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.initial_weights = self.checkpoints / "initial.safetensors"
        self.online_probe = self.checkpoints / "online_probe.safetensors"
        self.model = self.path / "model"
        self.cache = self.path / "cache"
        self.splits = self.cache / "splits"
        self.networks = self.path / "networks"
        self.reports = self.path / "reports"
        self.mlflow_store = self.path / "mlflow" / "mlflow.db"

    def kept_backbone(self, step: int) -> Path:
        """Return the folder of the bundle that is kept of an optimizer step."""
        return self.checkpoints / f"backbone-{step:08d}"

    @classmethod
    def existing(cls, path: str | Path) -> "RunDirectory":
        """Open a run that is there.

        Raises:
            UserError: the folder is missing or holds no run.
        """
        run = cls(path)
        if not run.config_file.is_file():
            reason = "it has no config.yaml" if run.path.is_dir() else "no such folder"
            raise UserError(f"'{path}' is not a run directory: {reason}")
        return run

    def refuse_existing(self) -> None:
        """Raise UserError where the folder exists and holds anything: runs are never overwritten."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            resume = f", or continue it with --resume {self.path}" if self.last_checkpoint.is_file() else ""
            raise UserError(f"'{self.path}' exists: choose another --out, or remove it{resume}")

    def remove_unless_saved(self) -> None:
        """Remove the folder of a run that has no checkpoint to go on from."""
        if not self.last_checkpoint.is_file():
            shutil.rmtree(self.path, ignore_errors=True)

    def config(self) -> dict[str, Any]:
        """Return the resolved settings of the run."""
        import yaml

        try:
            values = yaml.safe_load(self.config_file.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{self.config_file} is damaged: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{self.config_file} is damaged: it holds no settings")
        return values

    def write_config(self, values: dict[str, Any]) -> None:
        """Write the resolved settings; `byol pretrain --config` runs them again."""
        import yaml

        write_atomically(self.config_file, yaml.safe_dump(values, sort_keys=False))

    def write_environment(self, values: dict[str, Any]) -> None:
        """Write what the run was started with and on."""
        write_atomically(self.environment_file, json.dumps(values, indent=2) + "\n")

    def amend_environment(self, **values: Any) -> None:
        """Write what has turned out since."""
        self.write_environment(json.loads(self.environment_file.read_text()) | values)

    def tracking(self) -> dict[str, dict[str, Any]]:
        """Return under which id each tracking service knows this run; nothing where none does.

        Raises:
            UserError: the file holds something else.
        """
        try:
            known = json.loads(self.tracking_file.read_text()) if self.tracking_file.is_file() else {}
        except ValueError as error:
            raise UserError(f"{self.tracking_file} is damaged: {error}") from error
        if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
            raise UserError(f"{self.tracking_file} is damaged: it names no tracking services")
        return known

    def write_tracking(self, service: str, values: dict[str, Any]) -> None:
        """Note under which id a tracking service knows this run."""
        known = {**self.tracking(), service: values}
        write_atomically(self.tracking_file, json.dumps(known, indent=2) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the logged records, oldest first."""
        if not self.metrics_file.is_file():
            return []
        return [json.loads(line) for line in self.metrics_file.read_text().splitlines()]

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def cut_metrics(self, step: int) -> None:
        """Drop the records after optimizer step `step`, and a last line that a crash cut short."""
        if not self.metrics_file.is_file():
            return
        lines = [line for line in self.metrics_file.read_text().splitlines() if _is_up_to(line, step)]
        write_atomically(self.metrics_file, "".join(line + "\n" for line in lines))

    def results(self) -> list[dict[str, Any]]:
        """Return the records of results.json, oldest first; empty where nothing was evaluated."""
        return read_records(self.results_file)

    def append_results(self, records: list[dict[str, Any]]) -> None:
        """Add records to results.json."""
        append_records(self.results_file, records)


def append_records(file: Path, records: list[dict[str, Any]]) -> None:
    """Add records to a JSON list, made if it is missing."""
    lines = ",\n".join("  " + json.dumps(record) for record in [*read_records(file), *records])
    write_atomically(file, f"[\n{lines}\n]\n")


def read_records(file: Path) -> list[dict[str, Any]]:
    """Return the records of a JSON list; none where there is no file.

    Raises:
        UserError: the file holds something else.
    """
    try:
        records = json.loads(file.read_text()) if file.is_file() else []
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}") from error
    if not isinstance(records, list):
        raise UserError(f"{file} holds no list of results")
    return records


def write_atomically(file: Path, text: str) -> None:
    """Write a text; readers see the old one or the new one."""
    with written_whole(file) as temporary:
        temporary.write_text(text)


def write_state(file: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain data with `torch.save`; readers see the old file or the new one.

    Tensors are written as lying on the CPU, so that any machine can read them.

    Raises:
        UserError: the disk is full or not writable; what was in `file` before is intact.
    """
    import torch

    with written_whole(file) as temporary, temporary.open("wb") as stream:
        try:
            torch.save(_on_cpu(state), stream)
        except RuntimeError as error:  # torch's word for a failed write in the middle of its archive
            raise OSError(str(error)) from error


def _on_cpu(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _on_cpu(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_on_cpu(part) for part in value]
    return value.cpu() if hasattr(value, "cpu") else value


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Give a temporary file of the same folder to write; then flush it to the disk and rename it.

    Raises:
        UserError: the disk is full or not writable; what was in `file` before is intact.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        raise UserError(f"cannot save {file}: {error}. What was saved there before is intact") from error
    finally:
        temporary.unlink(missing_ok=True)


def free_path(stem: str) -> Path:
    """Return the first of STEM-1, STEM-2, ... that does not exist."""
    return next(path for number in itertools.count(1) if not (path := Path(f"{stem}-{number}")).exists())


def _is_up_to(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except ValueError:
        return False
