"""The command line: help, precedence, spelling, the order of words."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import byol
from byol import __version__
from byol.cli import _PRETRAIN_SECTIONS, main
from byol.config import EvaluateConfig, PretrainConfig
from byol.errors import UserError
from byol.rundir import RunDirectory
from byol.settings import read_flags, read_yaml, settings_from

COMMANDS = ("demo", "pretrain", "evaluate", "embed", "recipes")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        text = capsys.readouterr().out
        assert all(f"\n  {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: byol {command}")
    assert not any(word in text for word in ("_size", "<class", "(type", "null", "--target "))


def test_pretrain_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    main(["pretrain", "--help"])
    text = capsys.readouterr().out
    for name in PretrainConfig.__dataclass_fields__:
        assert "--" + name.replace("_", "-") in text
    assert all(flag in text for flag in ("--recipe", "--config", "--resume"))
    assert all(
        f"\n\n{title}:\n  --{first.replace('_', '-')} " in text for first, title in _PRETRAIN_SECTIONS.items()
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"byol {__version__}\n"


def test_recipes_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    assert "cifar10-cpu" in capsys.readouterr().out
    assert main(["recipes", "cifar10-200"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["backbone"] == "resnet18"


@pytest.mark.parametrize(
    "words", [["--batch-size", "64"], ["--batch_size", "64"], ["--batch-size=64"], ["--batch_size=64"]]
)
def test_hyphens_and_underscores(words: list[str]) -> None:
    assert read_flags(PretrainConfig, words) == {"batch_size": "64"}


def test_yes_or_no_flags_stand_alone_or_with_a_word() -> None:
    assert read_flags(EvaluateConfig, ["--baselines", "run"]) == {"baselines": "true", "target": "run"}
    words = ["run", "--baselines", "false", "--draws", "2"]
    assert read_flags(EvaluateConfig, words) == {"target": "run", "baselines": "false", "draws": "2"}
    assert settings_from(EvaluateConfig, {"target": "run", "baselines": "true"}).baselines is True


def test_negative_numbers_are_values() -> None:
    with pytest.raises(UserError, match="seed is -1, it must be at least 0"):
        settings_from(PretrainConfig, read_flags(PretrainConfig, ["--seed", "-1"]))


def test_yaml_numbers_are_read_by_the_settings_types() -> None:
    text = "base_lr: 3e-4\nepochs: 100\nbackbone: resnet18\ndevices: 2\nholdout: 500\ncompile: off\n"
    config = settings_from(PretrainConfig, read_yaml(PretrainConfig, text, "x.yaml"))
    assert config.base_lr == 3e-4 and config.epochs == "100" and config.devices == "2"
    assert config.holdout == 500 and config.compile == "off"


def test_python_gives_paths_where_flags_are_texts() -> None:
    config = settings_from(PretrainConfig, {"out": Path("runs") / "mine", "backbone_weights": Path("a.pt")})
    assert (config.out, config.backbone_weights) == ("runs/mine", "a.pt")


def test_flags_beat_config_beats_recipe_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("epochs: 2st\nbatch-size: 32\nbackbone: resnet8_16\nknn_every: 0\n")
    words = ["--batch-size", "16", "--config", "my.yaml", "--out", "run", "--recipe", "digits"]
    assert main(["pretrain", *words]) == 0
    config: dict[str, Any] = RunDirectory("run").config()
    assert config["batch_size"] == 16  # the flag
    assert config["backbone"] == "resnet8_16"  # the file
    assert config["optimizer"] == "adamw" and config["projection_size"] == 128  # the recipe


def test_a_recipe_and_a_file_serve_python_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my.yaml"
    file.write_text("epochs: 2st\nbatch-size: 32\nbackbone: resnet8_16\nknn_every: 0\n")
    run = byol.pretrain(recipe="digits", config=file, batch_size=16, out="run")
    config = RunDirectory(run.path).config()
    assert (config["batch_size"], config["backbone"], config["optimizer"]) == (16, "resnet8_16", "adamw")
    with pytest.raises(UserError, match=r"unknown recipe 'digit'\. Did you mean 'digits'"):
        byol.pretrain(recipe="digit")
    with pytest.raises(
        UserError, match="only --devices, --nodes, --num-workers may stand beside it, not --re"
    ):
        byol.pretrain(resume=run.path, recipe="digits")


def test_evaluate_and_embed_from_the_command_line(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [part for name, value in tiny.items() for part in ("--" + name, str(value))]
    assert main(["pretrain", *flags, "--out", "run"]) == 0
    assert "next: byol evaluate run" in capsys.readouterr().out
    words = ["--labels", "1,all", "--draws", "2", "--baselines", "--report", "--plot"]
    assert main(["evaluate", "run", *words]) == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ("byol", "random-init", "pixels", "logistic", "knn"))
    assert table.splitlines()[0].strip() == "digits, top1, 500 test images, percent"
    assert table.splitlines()[-1] == "reports: run/reports"
    names = {"knn.json", "knn.png", "logistic.json", "logistic.png", "labels.png"}
    assert {file.name for file in RunDirectory("run").reports.iterdir()} == names
    records = RunDirectory("run").results()
    fields = {"protocol", "features", "labels", "draw", "metric", "value", "split", "seed", "epoch", "data"}
    assert all(record.keys() == fields | {"seconds", "settings"} for record in records)
    assert len(records) == 2 * 3 * (2 + 1) * 3  # protocols, features, draws and all, metrics
    assert main(["embed", "--out", "vectors.npy", "run", "--split", "test"]) == 0
    assert Path("vectors.npy").is_file()


@pytest.mark.parametrize(
    ("available", "before", "expected"), [(3, None, "3"), (3, "5", "5"), (8, None, None)]
)
def test_no_more_threads_than_a_container_has_time_for(
    available: int, before: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byol.cli.available_cores", lambda: available)
    monkeypatch.setattr("byol.cli.visible_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if before is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", before)
    assert main(["--version"]) == 0
    assert os.environ.get("OMP_NUM_THREADS") == expected
