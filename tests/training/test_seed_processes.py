"""`BYOLTrainer` in two processes: the same as one that accumulates. Launchers: tests/test_coming_from.py."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from tests.ports import free_port
from tests.programs import finished
from tests.training import two_trainers

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two processes trained, each with a seed of its own, and two followed the docs."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "train.py").write_text(documented("DistributedDataParallel("))
    words = [sys.executable, "-m", "tests.training.two_trainers", str(folder)]
    words += [str(free_port()), str(free_port())]
    done = finished(words, 240, PROJECT, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 4/4") == 1
    return folder


@pytest.fixture(scope="module")
def reports(trained: Path) -> list[dict[str, Any]]:
    """What the two saw."""
    return [torch.load(trained / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
def test_together_they_see_each_image_of_an_epoch_once(reports: list[dict[str, Any]]) -> None:
    """20 of 23 images, two steps of ten; three are left out, other ones in the next epoch."""
    epochs = [[report["seen"][start : start + 10] for report in reports] for start in (0, 10)]
    for first, second in epochs:
        assert len(set(first) | set(second)) == 20
        assert not set(first) & set(second)
    assert epochs[0] != epochs[1]


@pytest.mark.slow
def test_two_processes_are_one_that_accumulates(reports: list[dict[str, Any]], tmp_path: Path) -> None:
    """Gradients are averaged, the target moves once a step: the same weights but for rounding."""
    torch.manual_seed(0)
    alone, seen = two_trainers.train(str(tmp_path), accumulate=2)
    halves = [report["seen"] for report in reports]
    assert seen == [index for step in range(4) for half in halves for index in half[5 * step : 5 * step + 5]]
    for report in reports:
        assert report["state"]["step"] == 4
        for name, parameter in alone.byol.named_parameters():
            if "backbone.net.5." not in name:  # behind the hidden layer: each process has its own
                together = report["state"]["learner"][name]
                torch.testing.assert_close(together, parameter.detach(), rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.slow
def test_each_process_draws_its_own_views(reports: list[dict[str, Any]]) -> None:
    assert not torch.equal(reports[0]["view"], reports[1]["view"])


@pytest.mark.slow
def test_the_first_process_alone_writes(reports: list[dict[str, Any]]) -> None:
    assert reports[0]["written"] == ["checkpoint.1.pt", "trainer.pt", "checkpoint.2.pt", "trainer.pt"]
    assert reports[1]["written"] == []
    assert reports[1]["files"] == ["checkpoint.1.pt", "checkpoint.2.pt", "trainer.pt"]


@pytest.mark.slow
def test_processes_wait_for_each_other_at_the_end_only(reports: list[dict[str, Any]]) -> None:
    """The original has two barriers in every step, and there were four steps."""
    assert [report["barriers"] for report in reports] == [1, 1]


@pytest.mark.slow
def test_the_loop_of_the_documentation_runs_in_two_processes(trained: Path) -> None:
    """With the variables of torchrun, which tests/test_coming_from.py starts."""
    resnet = torchvision.models.resnet18()
    resnet.load_state_dict(torch.load(trained / "improved-net.pt"), strict=True)
    assert int(resnet.bn1.num_batches_tracked) == 4


@pytest.mark.slow
def test_the_trainer_of_the_documentation_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(documented("BYOLTrainer(").replace("num_train_steps=1000", "num_train_steps=1"), {})
    assert {file.name for file in Path("checkpoints").iterdir()} == {"checkpoint.1.pt", "trainer.pt"}


def documented(part: str) -> str:
    """Return the one block of code of docs/training.md that has this part."""
    text = (PROJECT / "docs" / "training.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if part in block)
    return str(block)
