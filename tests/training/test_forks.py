"""Workers are forked while a process is alone: beside other threads a fork may be born dead."""

import json
import socket
import sys
from pathlib import Path

import pytest

from tests.programs import finished

PROGRAM = """
import json, os, sys
import torch.distributed as dist
from byol.cli import main
forks = []
os.register_at_fork(before=lambda: forks.append(dist.is_initialized()))
try:
    main(sys.argv[1:])
finally:
    with open(f"forks-{os.environ.get('LOCAL_RANK', 0)}.json", "w") as file:
        json.dump(forks, file)
"""
WORDS = ["pretrain", "--backbone", "resnet8_16", "--image-size", "32", "--batch-size", "8", "--epochs", "2st"]
WORDS += ["--projection-hidden-size", "32", "--knn-every", "0", "--num-workers", "2", "--devices", "2"]


@pytest.mark.slow
def test_workers_run_before_the_processes_meet(photographs: Path, tmp_path: Path) -> None:
    """Two decode in each of two processes; the picture of the first views is made from their first batch."""
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [*WORDS, "--data", f"folder:{photographs}", "--out", "run"]
    with socket.create_server(("127.0.0.1", 0)) as other:  # another tool's port is not theirs to meet at
        port = str(other.getsockname()[1])
        done = finished([sys.executable, tmp_path / "program.py", *words], cwd=tmp_path, MASTER_PORT=port)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "views.png").is_file()
    for rank in (0, 1):
        assert json.loads((tmp_path / f"forks-{rank}.json").read_text()) == [False, False]


SCRIPT = """
import multiprocessing
multiprocessing.set_start_method("forkserver")  # the default from Python 3.14 on
import sys
import torch
import torchvision
import byol

print("begins")
settings = dict(backbone="resnet8_16", image_size=32, projection_hidden_size=32, batch_size=8, epochs="2st")
run = byol.pretrain(sys.argv[1], out="run", num_workers=1, knn_every="1st", **settings)
byol.evaluate(run.path, protocol="knn", num_workers=1)

class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        assert torch.utils.data.get_worker_info() is not None
        return torch.full((3, 32, 32), index, dtype=torch.uint8)

resnet = torchvision.models.resnet18()
taken = dict(dataset=Images(), image_size=32, hidden_layer="avgpool", learning_rate=1e-3)
byol.BYOLTrainer(resnet, num_train_steps=1, batch_size=4, num_workers=1, **taken)()
print("ends")
"""


@pytest.mark.slow
def test_a_plain_script_runs_once_whatever_python_starts_by_default(
    photographs: Path, tmp_path: Path
) -> None:
    """Where workers are no forks, each of them runs the program's file again."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = finished([sys.executable, tmp_path / "script.py", f"folder:{photographs}"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "begins" and done.stdout.splitlines()[-1] == "ends"
