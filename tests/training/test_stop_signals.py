"""Ctrl-C, and what a run does with its signals."""

import signal
from pathlib import Path
from typing import Any

import pytest

import byol
from byol.cli import main
from byol.config import PretrainConfig
from byol.errors import UserError
from byol.rundir import RunDirectory
from byol.training.callbacks import Monitor
from byol.training.checkpoint import load
from byol.training.loggers import Loggers
from tests.training.test_resume import SETTINGS


def test_ctrl_c_exits_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Monitor._write

    def interrupted(self: Monitor, module: Any, values: dict[str, Any]) -> dict[str, Any]:
        if module.step == 4:
            signal.raise_signal(signal.SIGINT)
        return original(self, module, values)

    monkeypatch.setattr(Monitor, "_write", interrupted)
    assert main(["pretrain", *SETTINGS, "--out", str(tmp_path / "stopped")]) == 130
    assert "--resume" in capsys.readouterr().err
    assert load(RunDirectory(tmp_path / "stopped").last_checkpoint)["step"] == 4


@pytest.mark.parametrize("fails", [False, True])
def test_ctrl_c_ends_the_wait_for_a_service_and_what_is_left_gets_done(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait(self: Loggers, status: str) -> None:
        assert status == ("FAILED" if fails else "FINISHED")
        signal.raise_signal(signal.SIGINT)

    def fail(*_: Any) -> None:
        raise UserError("no more")

    monkeypatch.setattr(Loggers, "finish", wait)
    if fails:
        monkeypatch.setattr("byol.training.session.draw_first_views", fail)
    out = tmp_path / "run"
    assert main(["pretrain", *SETTINGS, "--out", str(out)]) == (2 if fails else 0)
    assert out.exists() != fails
    assert ("byol: error: no more" in capsys.readouterr().err) == fails


def test_ctrl_c_ends_the_wait_for_one_service_only(tmp_path: Path) -> None:
    ended: list[str] = []

    class Service:
        def __init__(self, answers: bool) -> None:
            self.answers = answers

        def finish(self, status: str) -> None:
            if not self.answers:
                signal.raise_signal(signal.SIGINT)
            ended.append(status)

    lines: list[str] = []
    loggers = Loggers(PretrainConfig(), RunDirectory(tmp_path), lines.append)
    loggers.loggers = {"mlflow": Service(answers=False), "tensorboard": Service(answers=True)}  # type: ignore[dict-item]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start with it ignored
    try:
        loggers.finish("FINISHED")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == ["FINISHED"] and lines == ["warning: no longer waiting for mlflow"]


def test_signals_are_given_back(tiny: dict[str, Any], tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    byol.pretrain("digits", out=str(tmp_path / "run"), **{**tiny, "epochs": "1st"})
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    assert after == before
