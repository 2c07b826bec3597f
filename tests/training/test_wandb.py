"""Runs recorded by Weights & Biases, offline."""

import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import byol
from byol.errors import UserError
from byol.rundir import RunDirectory
from byol.training import loggers
from tests.ports import free_port
from tests.test_tracking import OFFLINE, written
from tests.training.test_resume import stopping_at

KINDS = ("run", "config", "exit", "artifact")


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """W&B offline, at home in an empty folder."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for name, value in {**OFFLINE, "HOME": str(home), "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    import wandb

    yield wandb
    wandb.teardown()


@pytest.mark.slow
def test_wandb_offline_keeps_everything_in_the_run_directory_and_resumes(
    wandb: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    before = dict(os.environ)
    with stopping_at(3):
        byol.pretrain("digits", out=str(run.path), logger="wandb", experiment="digits", **tiny)
    run_id = json.loads(run.tracking_file.read_text())["wandb"]["run_id"]
    time.sleep(1.1)  # offline, W&B names its folders by the second
    byol.pretrain(resume=run.path)
    wandb.teardown()  # its process may still be writing
    assert not any("wandb" in path.name for path in (tmp_path / "home").rglob("*"))
    assert {name for name in os.environ.keys() - before.keys() if name.startswith("WANDB_")} <= {
        "WANDB_SERVICE"
    }
    stopped, resumed = sorted(run.path.glob(f"wandb/offline-run-*-{run_id}/*.wandb"))
    records = [*records_in(stopped), *records_in(resumed)]
    assert sorted({entry for record in records for entry in metrics_in(record)}) == written(run)
    kinds = {kind: [getattr(r, kind) for r in records if r.HasField(kind)] for kind in KINDS}
    assert [(r.run_id, r.project, r.display_name) for r in kinds["run"]] == [(run_id, "digits", "run")] * 2
    config = {item.key: json.loads(item.value_json) for item in kinds["config"][0].update}
    assert config["base_lr"] == 2e-3 and config["environment"]["version.byol"] == byol.__version__
    assert [ended.exit_code for ended in kinds["exit"]] == [1, 0]
    bundle = {entry.path: Path(entry.local_path) for entry in kinds["artifact"][1].manifest.contents}
    assert {name: file.read_bytes() for name, file in bundle.items()} == {
        file.name: file.read_bytes() for file in run.model.iterdir()
    }
    pictures = list(run.path.glob("wandb/offline-run-*/files/media/images/views*.png"))
    assert len(pictures) == 2 and pictures[0].read_bytes() == run.views_picture.read_bytes()


@pytest.mark.slow
def test_wandb_that_is_not_there(
    wandb: Any, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "_WANDB_SECONDS", 1)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=r"Weights & Biases failed or cannot be reached: .* without it"):
        byol.pretrain("digits", out=str(tmp_path / "run"), logger="wandb", **tiny)
    assert not (tmp_path / "run").exists()


def records_in(file: Path) -> Iterator[Any]:
    """Yield what is in a W&B file: a log as LevelDB writes it, after seven bytes of their own.

    Blocks of 32 KiB hold pieces, each after a checksum, its length and its kind: 1 a whole record,
    2 its beginning, 3 its middle, 4 its end.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record = (b"" if kind in (1, 2) else record) + data[place + 7 : place + 7 + length]
        if kind in (1, 4):
            yield Record.FromString(record)
        place += 7 + length


def metrics_in(record: Any) -> Iterator[tuple[str, int, float]]:
    """Yield name, step and value of every metric."""
    values = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
    for name, value in values.items():
        if not name.startswith(("_", "trainer/", "views")):
            yield name, values["trainer/global_step"], value
