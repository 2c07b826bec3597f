"""Runs recorded by a real MLflow server: what arrives, and what happens when nothing does."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import byol
from byol.cli import main
from byol.errors import UserError
from byol.evaluation.results import Result
from byol.evaluation.tracked import metrics_of
from byol.rundir import RunDirectory
from byol.tracking import environment_defaults, mlflow_address, own_store
from byol.training import checkpoint
from byol.training.loggers import Loggers
from tests.ports import free_port
from tests.training.test_resume import stopping_at

# Nothing here may speak to any other machine.
OFFLINE = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "WANDB_ERROR_REPORTING": "false"}
OFFLINE |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An MLflow server on this machine: SQLite, artifacts in a folder and served by it. Gives its port."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    words += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            words, cwd=folder, stdout=log, stderr=log, env={**os.environ, **OFFLINE}, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 240
        while not healthy(port):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def healthy(port: int) -> bool:
    """Say whether it answers from its database: /health answers before that is open."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search",
        json.dumps({"max_results": 1}).encode(),
        {"Content-Type": "application/json"},
    )
    with suppress(OSError), urllib.request.urlopen(asked, timeout=60) as answer:
        return bool(answer.status == 200)
    return False


class Gate:
    """A port that leads to the server while it is open: what a server that goes away looks like."""

    def __init__(self, server: int) -> None:
        self.server, self.port = server, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.open()

    def open(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def close(self) -> None:
        for connection in (self.listener, *self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                outside, _ = listener.accept()
                inside = socket.create_connection(("127.0.0.1", self.server))
                self.connections += [outside, inside]
                for ends in ((outside, inside), (inside, outside)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def gate(server: int) -> Iterator[Gate]:
    gate = Gate(server)
    yield gate
    gate.close()


def closing_at(step: int, gate: Gate, patch: pytest.MonkeyPatch) -> None:
    """Let the server go away when the record of this step is to be logged."""
    original = Loggers.log

    def log(self: Loggers, record: Any) -> None:
        if record["step"] == step:
            gate.close()
        original(self, record)

    patch.setattr(Loggers, "log", log)


@pytest.fixture(scope="module")
def mlflow(server: int) -> Iterator[Any]:
    """MLflow's client of the server."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        from mlflow import MlflowClient

        yield MlflowClient(f"http://127.0.0.1:{server}")


@pytest.fixture(scope="module")
def run(
    tiny: dict[str, Any], server: int, mlflow: Any, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    """A run that the server recorded."""
    before = dict(os.environ)
    settings = {**tiny, "logger": "mlflow,tensorboard", "tracking_uri": f"http://127.0.0.1:{server}"}
    out = tmp_path_factory.mktemp("runs") / "tracked"
    byol.pretrain("digits", out=str(out), experiment="digits", **settings)
    assert dict(os.environ) == before
    return RunDirectory(out)


def run_id(run: RunDirectory) -> str:
    return str(json.loads(run.tracking_file.read_text())["mlflow"]["run_id"])


def history(mlflow: Any, run_id: str) -> list[tuple[str, int, float]]:
    """Return every metric that the server has: name, step, value."""
    names = mlflow.get_run(run_id).data.metrics
    return sorted((n, m.step, m.value) for n in names for m in mlflow.get_metric_history(run_id, n))


def written(run: RunDirectory) -> list[tuple[str, int, float]]:
    """Return the same of metrics.jsonl: each once, where two records share a step and its epoch."""
    return sorted(
        {
            (name, record["step"], float(value))
            for record in run.metrics()
            for name, value in record.items()
            if name != "step"
        }
    )


@pytest.mark.slow
def test_settings_environment_and_status_arrive(run: RunDirectory, mlflow: Any) -> None:
    recorded = mlflow.get_run(run_id(run))
    expected = {name: str(value) for name, value in run.config().items() if value is not None}
    assert recorded.data.params == expected and expected["base_lr"] == "0.002"
    assert recorded.info.status == "FINISHED" and recorded.info.run_name == "tracked"
    assert mlflow.get_experiment(recorded.info.experiment_id).name == "digits"
    tags = recorded.data.tags
    assert tags["version.torch"] == torch.__version__.split("+")[0]
    assert tags["run_directory"] == str(run.path) and tags["command"]


@pytest.mark.slow
def test_every_metric_arrives_at_its_step(run: RunDirectory, mlflow: Any) -> None:
    assert history(mlflow, run_id(run)) == written(run)
    assert {step for name, step, _ in written(run) if name == "loss"} == {2, 4, 6}


@pytest.mark.slow
def test_bundle_and_pictures_arrive(run: RunDirectory, mlflow: Any, tmp_path: Path) -> None:
    folder = Path(mlflow.download_artifacts(run_id(run), "", str(tmp_path)))
    assert (folder / "views.png").read_bytes() == run.views_picture.read_bytes()
    state, expected = (byol.load_backbone(path).net.state_dict() for path in (folder / "model", run.path))
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    assert (folder / "config.yaml").read_text() == run.config_file.read_text()


@pytest.mark.slow
def test_evaluation_nests_under_the_run(
    run: RunDirectory, mlflow: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", str(run.path), "--logger", "mlflow", "--labels", "1%,all", "--draws", "2"]
    words += ["--finetune-rates", "0.5", "--finetune-epochs", "1", "--report"]
    assert main([*words, "--protocol", "knn,finetune"]) == 0
    parent = mlflow.get_run(run_id(run))
    (child,) = mlflow.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    assert child.info.status == "FINISHED" and child.data.params["labels"] == "1%,all"
    results = [r for r in run.results() if r["protocol"] == "knn"]
    one, other = (r["value"] for r in results if r["labels"] == "1%" and r["metric"] == "top1")
    metrics = history(mlflow, child.info.run_id)
    (whole,) = (r["value"] for r in results if r["labels"] == "all" and r["metric"] == "top1")
    assert ("knn/byol/all/top1", 0, whole) in metrics
    assert ("knn/byol/1pct/top1", 0, pytest.approx((one + other) / 2)) in metrics
    assert [entry for entry in metrics if entry[0] == "knn/byol/1pct/top1.draws"] == [
        ("knn/byol/1pct/top1.draws", 0, one),
        ("knn/byol/1pct/top1.draws", 1, other),
    ]
    records = mlflow.download_artifacts(child.info.run_id, "results.json", str(tmp_path))
    assert json.loads(Path(records).read_text()) == run.results()
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    kept = {artifact.path for artifact in mlflow.list_artifacts(child.info.run_id, "reports")}
    assert {"reports/finetune.json", "reports/finetune.png", "reports/knn.png"} <= kept


@pytest.mark.slow
def test_failed_evaluation_and_a_server_that_does_not_know_the_run(
    run: RunDirectory, mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from byol.evaluation import run as evaluation

    store = f"sqlite:///{tmp_path}/other.db"
    byol.evaluate(run.path, protocol="knn", logger="mlflow", tracking_uri=store, experiment="alone")
    other = type(mlflow)(store)
    (alone,) = other.search_runs([other.get_experiment_by_name("alone").experiment_id])
    assert "mlflow.parentRunId" not in alone.data.tags and alone.data.metrics["knn/byol/all/top1"] > 0.5

    def broken(*arguments: Any) -> None:
        raise UserError("the features are not finite")

    monkeypatch.setattr(evaluation, "measured", broken)
    with pytest.raises(UserError, match="not finite"):
        byol.evaluate(run.path, protocol="logistic", logger="mlflow")
    (failed,) = mlflow.search_runs(
        [mlflow.get_experiment_by_name("digits").experiment_id], "params.protocol = 'logistic'"
    )
    assert failed.info.status == "FAILED"


@pytest.mark.slow
def test_stopped_run_is_continued_in_the_same_mlflow_run(
    tiny: dict[str, Any], server: int, mlflow: Any, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    settings = {**tiny, "logger": "mlflow", "tracking_uri": f"http://127.0.0.1:{server}"}
    with stopping_at(3):
        byol.pretrain("digits", out=str(run.path), **settings)
    first, saved = run_id(run), run.last_checkpoint.read_bytes()
    assert mlflow.get_run(first).info.status == "KILLED"
    assert [file.path for file in mlflow.list_artifacts(first, "model")] == [
        "model/config.json",
        "model/model.safetensors",
    ]
    with stopping_at(5):
        byol.pretrain(resume=run.path)
    run.last_checkpoint.write_bytes(saved)  # as after a power cut: the server has later steps already
    byol.pretrain(resume=run.path)
    assert run_id(run) == first and mlflow.get_run(first).info.status == "FINISHED"
    arrived = [entry[:2] for entry in history(mlflow, first)]
    assert arrived == sorted({entry[:2] for entry in written(run)}) and ("loss", 4) in arrived
    assert not run.path.joinpath("tensorboard").exists()


@pytest.mark.slow
def test_server_that_goes_away_stops_the_run_which_can_be_continued(
    tiny: dict[str, Any], gate: Gate, mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "run")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = {**tiny, "logger": "mlflow", "tracking_uri": gate.uri, "checkpoint_every": "6st"}
    with pytest.MonkeyPatch.context() as patch:
        closing_at(2, gate, patch)
        with pytest.raises(UserError, match=f"The run is saved; continue: byol pretrain --resume {run.path}"):
            byol.pretrain("digits", out=str(run.path), **settings)
    assert checkpoint.load(run.last_checkpoint)["step"] == 2
    before = run.metrics_file.read_bytes()
    with pytest.raises(UserError, match=rf"{gate.uri}.* refused. To go on without it, write logger_on_error"):
        byol.pretrain(resume=run.path)
    assert run.metrics_file.read_bytes() == before
    gate.open()
    byol.pretrain(resume=run.path)
    assert history(mlflow, run_id(run)) == written(run)
    assert mlflow.get_run(run_id(run)).info.status == "FINISHED"


@pytest.mark.slow
def test_server_that_goes_away_is_told_once_and_training_goes_on(
    tiny: dict[str, Any],
    gate: Gate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    closing_at(4, gate, monkeypatch)
    settings = {**tiny, "logger": "mlflow", "logger_on_error": "warn", "tracking_uri": gate.uri}
    run = byol.pretrain("digits", out=str(tmp_path / "run"), **settings)
    assert run.metrics()[-1]["step"] == 6
    errors = capsys.readouterr().err
    assert errors.count("warning") == 1 and f"MLflow at {gate.uri}" in errors


def test_server_that_is_not_there(
    tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"http://127.0.0.1:{free_port()}"
    words = [word for name, value in tiny.items() for word in ("--" + name.replace("_", "-"), str(value))]
    words = ["pretrain", *words, "--out", "run", "--logger", "mlflow", "--tracking-uri", uri]
    start = time.monotonic()
    assert main(words) == 2
    assert time.monotonic() - start < 60  # MLflow itself would try for four minutes
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"MLflow at {uri}" in line and "--logger-on-error warn" in line
    assert list(tmp_path.iterdir()) == []
    assert main([*words, "--logger-on-error", "warn"]) == 0
    assert capsys.readouterr().err.count("warning: ") == 1
    assert RunDirectory("run").metrics()[-1]["step"] == 6
    with pytest.raises(UserError, match=f"MLflow at {uri}"):
        byol.evaluate("run", protocol="knn", logger="mlflow", tracking_uri=uri)
    assert not RunDirectory("run").results_file.exists()


def test_an_empty_address_names_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    run = RunDirectory(tmp_path)
    assert mlflow_address(None, run) == own_store(run)
    with pytest.raises(UserError, match="name the server with --tracking-uri"):
        mlflow_address(None, None)


@pytest.mark.slow
def test_without_an_address_everything_stays_in_the_run_directory(
    tiny: dict[str, Any], mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = RunDirectory(byol.pretrain("digits", out="run", run_name="mine", logger="mlflow", **tiny).path)
    byol.evaluate(run.path, protocol="knn", logger="mlflow")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    run.path.rename("moved")
    store = type(mlflow)(f"sqlite:///{tmp_path}/moved/mlflow/mlflow.db")
    (experiment,) = (found for found in store.search_experiments() if found.name == "byol")
    evaluation, training = store.search_runs([experiment.experiment_id])
    assert training.info.run_name == "mine" and history(store, training.info.run_id) == written(
        RunDirectory("moved")
    )
    assert evaluation.data.tags["mlflow.parentRunId"] == training.info.run_id
    assert (tmp_path / "moved/mlflow/artifacts" / training.info.run_id / "artifacts/views.png").is_file()


@pytest.mark.slow
def test_only_the_first_of_two_processes_records(
    byol_command: Any, tiny: dict[str, Any], server: int, mlflow: Any, tmp_path: Path
) -> None:
    words = [word for name, value in tiny.items() for word in ("--" + name.replace("_", "-"), str(value))]
    words += ["--logger", "mlflow", "--tracking-uri", f"http://127.0.0.1:{server}", "--experiment", "two"]
    done = byol_command("pretrain", *words, "--devices", "2", "--out", "run", cwd=tmp_path, **OFFLINE)
    assert done.returncode == 0, done.stderr
    (recorded,) = mlflow.search_runs([mlflow.get_experiment_by_name("two").experiment_id])
    assert history(mlflow, recorded.info.run_id) == written(RunDirectory(tmp_path / "run"))


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_missing_extra_is_named(
    package: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for on_error in ("stop", "warn"):
        with pytest.raises(UserError, match=rf"pip install 'byol\[{package}\]'"):
            byol.pretrain(
                "digits", out=str(tmp_path / "run"), logger=package, logger_on_error=on_error, **tiny
            )
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_has_every_metric_and_none_writes_nothing(tiny: dict[str, Any], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunDirectory(byol.pretrain("digits", out=str(tmp_path / "run"), **tiny).path)
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    scalars = [(n, e.step, e.value) for n in events.Tags()["scalars"] for e in events.Scalars(n)]
    assert sorted(set(scalars)) == [(n, step, pytest.approx(value)) for n, step, value in written(run)]
    silent = byol.pretrain("digits", out=str(tmp_path / "silent"), logger="none", **tiny)
    assert sorted(path.name for path in run.path.iterdir() if path.name != "tensorboard") == sorted(
        path.name for path in silent.path.iterdir()
    )


def test_metrics_of_results_are_means_deviations_and_draws() -> None:
    whole = Result("knn", "byol", "all", None, "top1", 0.9, "test", 0, 1, "digits", 0.1)
    draws = [
        Result("knn", "pixels", "1%", draw, "top1", value, "test", 0, 1, "digits", 0.1)
        for draw, value in enumerate((0.2, 0.4))
    ]
    assert sorted(metrics_of([whole, *draws])) == [
        ("knn/byol/all/top1", 0.9, 0),
        ("knn/pixels/1pct/top1", pytest.approx(0.3), 0),
        ("knn/pixels/1pct/top1.draws", 0.2, 0),
        ("knn/pixels/1pct/top1.draws", 0.4, 1),
        ("knn/pixels/1pct/top1.std", pytest.approx(0.02**0.5), 0),
    ]


def test_environment_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYOL_TEST_KEPT", "the user's")
    before = dict(os.environ)
    with suppress(ZeroDivisionError), environment_defaults({"BYOL_TEST_KEPT": "ours", "BYOL_TEST_NEW": "x"}):
        assert os.environ["BYOL_TEST_KEPT"] == "the user's" and os.environ["BYOL_TEST_NEW"] == "x"
        raise ZeroDivisionError
    assert dict(os.environ) == before
