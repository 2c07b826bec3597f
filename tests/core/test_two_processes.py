"""DistributedDataParallel around the learner, with an unused layer and without `find_unused_parameters`."""

import sys
from pathlib import Path

import torch

from tests.programs import finished


def test_two_processes_stay_together(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    done = finished([sys.executable, script, tmp_path], 120)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    unused = {name for name in first["parameters"] if "backbone.net.5." in name}
    assert len(unused) == 4 and not unused & first["gradients"].keys()
    for name in first["parameters"].keys() - unused:
        assert torch.equal(first["parameters"][name], second["parameters"][name]), name
    for name, gradient in first["gradients"].items():
        assert gradient is not None and torch.equal(gradient, second["gradients"][name]), name
    moved = [name for name in first["parameters"] if name.startswith("target")]
    online = {name.replace("target.network", "online") for name in moved} - unused
    assert any(
        not torch.equal(
            first["parameters"][name], first["parameters"][name.replace("online", "target.network")]
        )
        for name in online
    )
