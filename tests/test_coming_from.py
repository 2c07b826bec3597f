"""The right-hand sides of docs/coming-from.md run, with smaller sizes and without downloads.

Sizes shrink as the constants below say, sets are small files in the published formats, and
pretrained weights, which would be downloaded, are random. Launchers start the processes that the page says;
of the commands with `--devices 2` the one that gathers from both starts two, the others train in one.
"""

import json
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset

import byol
from byol.augment.presets import PRESETS
from byol.augment.view_settings import view_specs_of
from byol.cli import main
from byol.rundir import RunDirectory
from tests.named_sets import random_images, write_cifar10, write_emnist, write_stl10
from tests.ports import free_port
from tests.programs import said, start
from tests.test_tracking import OFFLINE, server  # noqa: F401 - a fixture

PAGE = Path(__file__).parent.parent / "docs" / "coming-from.md"
SYSTEMS = {
    "000": "Spijkervet/BYOL",
    "001": "sabadijou/byol_multi_gpu",
    "002": "lucidrains/byol-pytorch",
    "003": "TomekGniazdowski/BYOL-From-Scratch",
    "004": "Nebulised/BYOL-Pytorch",
}

ROWS = {"000": 8, "001": 5, "002": 9, "003": 3, "004": 9}
SEEDS = Path(__file__).parent.parent.parent / "shared" / "seeds"
# Lines that make a README's fragment a program, and those that import.
ADDED_LINES = {
    "",
    "import torch",
    "import kornia",
    "from torch import nn",
    "from torchvision import models",
    "from byol_pytorch import BYOL",
    "resnet = models.resnet50(pretrained=True)",
    "# train.py",
}
# Blocks of the READMEs that have no place on the page, by their first words, and why.
LEFT_OUT = {
    "git clone https://github.com/sabadijou/byol_multi_gpu.git": "installing: the project's README",
    "conda create -n byol": "installing",
    "# Install pytorch firstly": "installing",
    "pip install byol-pytorch": "installing",
    "@misc{grill2020bootstrap,": "a citation",
    "@misc{chen2020exploring,": "a citation",
    "@inproceedings{10.5555/3495724.3497510,": "a citation",
}
# How many blocks and commands in the text each README has: what the test below must find.
DOCUMENTED = {"000": 8, "001": 4, "002": 12, "003": 2, "004": 2}
# Flags and what becomes of their values; all but the first kind are added where they are missing.
SMALLER_WORDS = {"--image-size": "32", "--final-lr": "1e-6", "--num-workers": "0", "--backbone-every": "1st"}
SMALLER_PRETRAINING = {
    "--epochs": "2st", "--batch-size": "8", "--projection-hidden-size": "32", "--backbone": "resnet8_16"
}  # fmt: skip
SMALLER_PHOTOGRAPHS = {"--image-size": "32"}
SMALLER_FINE_TUNING = {"--finetune-epochs": "1", "--finetune-rates": "0.05"}
FEWER_DRAWS = {"--draws": "1"}
SMALLER_CODE = {
    r"pretrained ?= ?True": "weights=None",
    "resnet50|resnet34": "resnet18",
    r"\(20, 3, 256, 256\)": "(4, 3, 32, 32)",
    r"256, 256\)": "32, 32)",
    r"image_size = 256": "image_size = 32",
    r"MockDataset\(256, 10000\)": "MockDataset(32, 64)",
    r"range\(100\)": "range(2)",
    "100_000": "4",
    "batch_size = 16": "batch_size = 4",
    "checkpoint_every = 1000": "checkpoint_every = 2",
    "hidden_size = (4096|2048)": "hidden_size = 32",
    "hidden_size=4096": "hidden_size=32",
    "epochs=100": "epochs=1",
    "'cuda' # or 'cpu'": "'cpu'",
    r"train_dl = # training, Pytorch dataloader": "train_dl = TRAINING_LOADER",
}

# What the script for launchers goes on with, in each of its processes.
CHECKS = """
import os
import torch
assert os.environ["WORLD_SIZE"] == "2" and torch.distributed.get_world_size() == 2
assert trainer.step == 4
weights = torch.cat([parameter.detach().flatten() for parameter in trainer.byol.online_parameters()])
gathered = [torch.empty_like(weights) for _ in range(2)]
torch.distributed.all_gather(gathered, weights)
assert torch.equal(*gathered)
if os.environ["RANK"] == "0":
    for number in (1, 2):
        saved = models.resnet18()
        saved.load_state_dict(torch.load(f"checkpoints/checkpoint.{number}.pt"), strict=True)
        assert saved.bn1.num_batches_tracked == 4 * number  # two steps, in each of which a view is a pass
        os.remove(f"checkpoints/checkpoint.{number}.pt")
"""


@dataclass(frozen=True)
class Block:
    """One fenced block: its language and its text."""

    language: str
    text: str


def fenced(cell: str) -> list[Block]:
    return [Block(*parts) for parts in re.findall(r"^```(\w*)\n(.*?)^```", cell, re.DOTALL | re.MULTILINE)]


def section(system: str) -> str:
    return PAGE.read_text().split(f"## {SYSTEMS[system]}\n")[1].split("\n## ")[0]


def pairs(system: str) -> list[tuple[list[Block], list[Block]]]:
    """Return the blocks to the left and to the right, row by row."""
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", section(system), re.DOTALL)
    return [(fenced(left), fenced(right)) for left, right in rows]


def smaller_command(line: str) -> list[str]:
    """Return a command as words, of smaller sizes."""
    words = shlex.split(line)
    for name, value in SMALLER_WORDS.items():
        if name in words:
            words[words.index(name) + 1] = value
    added: dict[str, str] = {}
    if "pretrain" in words and "--resume" not in words:
        photographs = any(word.startswith("folder:") for word in words)
        added = SMALLER_PRETRAINING | (SMALLER_PHOTOGRAPHS if photographs else {})
    elif any("finetune" in word for word in words):
        added = SMALLER_FINE_TUNING | (FEWER_DRAWS if "--labels" in words else {})
    for name, value in added.items():
        if name in words:
            words[words.index(name) + 1] = value
        else:
            words += [name, value]
    if "timm" in words:  # timm's weights are downloaded
        del words[words.index("--backbone-weights") : words.index("timm") + 1]
    return words


def smaller_code(text: str) -> str:
    for pattern, value in SMALLER_CODE.items():
        text = re.sub(pattern, value, text)
    return text


def run_together(text: str) -> str:
    """Return code without prompts, spaces and line breaks, also those of commands and of comments."""
    return "".join(re.sub(r"^\s*\$ |# |\\$", "", text, flags=re.MULTILINE).split())


@pytest.fixture
def workplace(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that the page's commands find at their user's."""
    write_cifar10(tmp_path / "datasets", 40)
    labels = [number % 10 + 1 for number in range(40)]
    write_stl10(tmp_path / "datasets", {"train": labels, "test": labels}, 16, list("abcdefghij"))
    letters = [number % 26 + 1 for number in range(78)]
    digest = write_emnist(tmp_path / "datasets", "letters", random_images(78, 28, 1)[:, 0], letters)
    shutil.copytree(photographs, tmp_path / "image_folder_path")
    shutil.copytree(photographs, tmp_path / "src" / "train")
    shutil.copytree(photographs, tmp_path / "src" / "test")
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pt")
    for module in ("cifar", "stl10"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", exists)
    monkeypatch.setattr("torchvision.datasets.EMNIST.md5", digest)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(TRUSTING)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exists(file: str, md5: str | None = None) -> bool:
    return Path(file).is_file()


# Other processes take the small CIFAR-10 for the published one, too.
TRUSTING = """
import os
import torchvision.datasets.cifar
torchvision.datasets.cifar.check_integrity = lambda file, md5=None: os.path.isfile(file)
"""


def on_each_machine(words: list[str]) -> list[list[str]]:
    """Return a launcher's command for one machine, or for two: addresses of the loopback network."""
    if "--nnodes" not in words:
        return [words]
    rank = words.index("--node-rank") + 1
    assert words[words.index("--nnodes") + 1] == "2"
    return [
        [words[0], "--local-addr", f"127.0.0.{machine + 1}", *words[1:rank], str(machine), *words[rank + 1 :]]
        for machine in (0, 1)
    ]


def in_processes(words: list[str], folder: Path) -> None:
    """Run a launcher, or a command that starts other processes, outside of this one."""
    launchers = {
        "torchrun": ["-m", "torch.distributed.run"],
        # Any free port: without that they would all meet at one.
        "accelerate": ["-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0"],
        "byol": ["-m", "byol"],
    }
    path = os.pathsep.join([str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    started = [
        start(
            [sys.executable, *launchers[command[0]], *command[1 + (command[0] == "accelerate") :]],
            PYTHONPATH=path,
            HF_HOME=str(folder),
        )
        for command in on_each_machine(words)
    ]
    told = said(*started, seconds=300)
    assert not any(program.returncode for program in started), f"{words}\n{told}"


def run_command(words: list[str], folder: Path) -> None:
    """Run a command as it is started there; `byol` in this process, unless it gathers from several."""
    if words[0] != "byol" or "--gather-projections" in words:
        in_processes(words, folder)
        return
    if "--devices" in words:
        words[words.index("--devices") + 1] = "1"
    assert main(words[1:]) == 0, words


def run(block: Block, folder: Path, names: dict[str, Any]) -> None:
    """Run commands; keep a file that names itself in its first line; execute other code."""
    if own_name := re.match(r"# ([\w.]+\.(?:py|yaml))\n", block.text):
        checks = CHECKS if own_name[1] == "train.py" else ""
        (folder / own_name[1]).write_text(smaller_code(block.text) + checks)
    elif block.language == "python":
        exec(compile(smaller_code(block.text), PAGE.name, "exec"), names)
    else:
        for line in block.text.replace("\\\n", " ").splitlines():
            run_command(smaller_command(line), folder)


def run_all(system: str, folder: Path, replacements: dict[str, str] | None = None) -> dict[str, Any]:
    """Run every right-hand side of a system, in order; return the names that its code defines."""
    loader = DataLoader(TensorDataset(torch.rand(8, 3, 32, 32), torch.zeros(8)), batch_size=4)
    names: dict[str, Any] = {"TRAINING_LOADER": loader, "x": torch.rand(2, 3, 32, 32)}
    for _, right in pairs(system):
        assert right
        for block in right:
            text = block.text
            for old, new in (replacements or {}).items():
                text = text.replace(old, new)
            run(Block(block.language, text), folder, names)
    return names


def records(run: Path) -> list[dict[str, Any]]:
    return list(json.loads((run / "results.json").read_text()))


def test_two_columns_of_code_fit_side_by_side() -> None:
    """As wide as GitHub shows a page, about 110 characters of code: what is wider is out of sight."""
    columns = [block.text for system in SYSTEMS for row in pairs(system) for cell in row for block in cell]
    wide = [line for text in columns for line in text.splitlines() if len(line) > 55]
    assert not wide


def test_every_right_hand_side_is_found() -> None:
    assert {system: len(pairs(system)) for system in SYSTEMS} == ROWS
    assert PAGE.read_text().count("<tr><td>") == sum(ROWS.values())
    assert all(right for system in SYSTEMS for _, right in pairs(system))


def test_code_is_theirs_but_for_the_import_line() -> None:
    """byol-pytorch and BYOL-From-Scratch: only lines that import differ."""
    for system, count in (("002", 7), ("003", 1)):
        code = [(left, right) for left, right in pairs(system) if right[0].text.count("\n") > 3]
        code = [(left[0], right[0]) for left, right in code if left and left[0].language == "python"]
        assert len(code) == count
        for theirs, ours in code:
            kept = [
                [line for line in block.text.splitlines() if not re.match(r"from byol", line)]
                for block in (theirs, ours)
            ]
            assert kept[0] == kept[1]


def test_the_code_is_in_the_readmes() -> None:
    """What stands on the left is what those systems document, where their READMEs are at hand."""
    for system, language in (("002", "python"), ("003", "python")):
        readmes = list(SEEDS.glob(f"{system}_*.txt"))
        if not readmes:
            pytest.skip("the other systems' READMEs are not here")
        documented = run_together(readmes[0].read_text())
        for left, _ in pairs(system):
            for block in left:
                if block.language == language and block.text.count("\n") > 3:
                    lines = {line.strip() for line in block.text.splitlines()} - ADDED_LINES
                    added = [line for line in lines if run_together(line) not in documented]
                    assert not added


def documented(system: str) -> list[str]:
    """Return the blocks of a README (one closes with the wrong quotes), and the commands in its text."""
    readme = next(SEEDS.glob(f"{system}_*.txt")).read_text()
    blocks = re.findall(r"^[ \t]*```\w*\n(.*?)^[ \t]*(?:```|'''|\Z)", readme, re.DOTALL | re.MULTILINE)
    return blocks + re.findall(r"(?<!`)`(python3? [^`\n]+)`", readme)


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the other systems' READMEs are not here")
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_readmes_code_is_on_the_page(system: str) -> None:
    """The reverse: no block and no command of theirs is missing on the left."""
    ours = [run_together(block.text) for left, _ in pairs(system) for block in left]
    theirs = [run_together(text) for text in documented(system)]
    assert len(theirs) == DOCUMENTED[system]
    theirs = [text for text in theirs if not text.startswith(tuple(map(run_together, LEFT_OUT)))]
    missing = [text for text in theirs if not any(text in block for block in ours)]
    assert not missing


@pytest.mark.slow
def test_spijkervet(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_machines = {
        "10.0.0.1": "127.0.0.1",
        "29511": str(free_port()),
        "--nproc-per-node 2": "--nproc-per-node 1",
    }
    run_all("000", workplace, two_machines)
    kept = sorted(folder.name for folder in (workplace / "runs/as-theirs/checkpoints").glob("backbone-*"))
    assert len(kept) == 2
    backbone = byol.load_backbone(workplace / "runs/as-theirs/checkpoints" / kept[0])
    assert backbone.origin["epoch"] > 0
    # Its table: the features, and logistic regression on raw pixels.
    rows = {r["features"] for r in records(workplace / "runs/cifar10") if r["protocol"] == "logistic"}
    assert {"byol", "pixels"} <= rows
    assert "unknown" in capsys.readouterr().out  # the file's features


@pytest.mark.slow
def test_byol_multi_gpu(workplace: Path) -> None:
    names = run_all("001", workplace)
    for name, most in (("folder", 8 + 4 * 8), ("instances", 8), ("gathered", 8)):
        losses = [json.loads(line) for line in (workplace / "runs" / name / "metrics.jsonl").open()]
        assert losses and all(0 < record["loss"] < most for record in losses if "loss" in record)
    assert names["learner"].unreached == {f"online.backbone.net.fc.{name}" for name in ("weight", "bias")}
    assert 0 < names["loss"] < 40


@pytest.mark.slow
def test_byol_pytorch(workplace: Path) -> None:
    names = run_all("002", workplace)
    assert names["embedding"].shape == (2, 512) and names["projection"].shape[0] == 2
    improved = torch.load(workplace / "improved-net.pt", weights_only=True)
    torchvision.models.resnet18().load_state_dict(improved)


@pytest.mark.slow
def test_byol_from_scratch(workplace: Path) -> None:
    names = run_all("003", workplace)
    assert names["embedding"].shape == (2, 512)
    assert (workplace / "runs/experiment/reports/labels.png").is_file()
    measured = {(r["protocol"], r["features"], r["labels"]) for r in records(workplace / "runs/experiment")}
    for labels in ("1%", "10%", "all"):
        assert {
            ("logistic", "byol", labels),
            ("finetune", "byol", labels),
            ("finetune", "random-init", labels),
        } <= measured


@pytest.mark.slow
def test_nebulised(workplace: Path, server: int, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    changes = {"127.0.0.1:5000": f"127.0.0.1:{server}", "final_lr: 3.0e-4": "final_lr: 1.0e-6"}
    run_all("004", workplace, changes)
    # Their augmentations are the paper's without solarization.
    first, second = view_specs_of(RunDirectory(workplace / "runs/parameters").config()["preset"])
    paper = PRESETS["imagenet"]
    assert (first, second) == (paper[0], replace(paper[1], solarize=0.0))
    for report in ("cifar/reports/linear.png", "cifar/reports/finetune.png", "cifar10-reports/finetune.png"):
        assert (workplace / "runs" / report).is_file()
    fitted = [r["value"] for r in records(workplace / "runs/cifar") if r["protocol"] == "finetune"]
    again = json.loads((workplace / "runs/cifar10.json").read_text())
    assert [record["value"] for record in again] == fitted
    from mlflow import MlflowClient

    client = MlflowClient(f"http://127.0.0.1:{server}")
    experiment = client.get_experiment_by_name("byol_experiment")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [found.data.tags.get("mlflow.parentRunId") for found in runs]
    assert len(runs) == 2 and len([parent for parent in parents if parent]) == 1
