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
