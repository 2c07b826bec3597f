"""Two processes with half a batch each do what one does with the whole batch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.core import whole_batch

Results = tuple[dict[Any, Any], dict[Any, Any]]


def in_two_processes(folder: Path, device: str) -> Results:
    script = Path(whole_batch.__file__)
    command = [sys.executable, script, folder, device]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    return first, second


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=tolerance, atol=tolerance), name


def assert_same_training(ranks: Results, case: Any, expected: dict[str, Any], tolerance: float) -> None:
    """Compare loss (averaged over the processes), gradients of each step, weights and target at the end."""
    losses = (ranks[0][case]["losses"] + ranks[1][case]["losses"]) / 2
    assert torch.allclose(losses, expected["losses"], rtol=tolerance, atol=tolerance)
    assert expected["losses"].std() > 1e-6
    for rank in ranks:
        for found, gradient in zip(rank[case]["gradients"], expected["gradients"], strict=True):
            assert_same(found, gradient, tolerance)
        assert_same(rank[case]["state"], expected["state"], tolerance)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return in_two_processes(tmp_path_factory.mktemp("ranks"), "cpu")


def one_process(case: tuple[str, bool, bool]) -> dict[str, Any]:
    optimizer, gather, momentum = case
    settings = {"normalization": "group", "gather_projections": gather, "use_momentum": momentum}
    learner = whole_batch.make_learner("cpu", seed=0, **settings)
    return whole_batch.trained(learner, learner, optimizer, whole_batch.views("cpu"))


@pytest.mark.parametrize("case", whole_batch.CPU_CASES, ids=str)
def test_without_cross_sample_statistics(case: tuple[str, bool, bool], ranks: Results) -> None:
    """The seed 001's gather left the gradients divided by the number of processes."""
    expected = one_process(case)
    assert_same_training(ranks, case, expected, 1e-10)
    first, second = (rank[case]["losses"] for rank in ranks)
    assert torch.equal(first, second) == case[1], "the gathered loss is the whole batch's on each process"


@pytest.mark.parametrize("momentum", [True, False])
def test_gathered_outputs_are_those_of_the_whole_batch(momentum: bool, ranks: Results) -> None:
    """Both views' projections [2B,D], the first view's first."""
    case = ("sgd", True, momentum)
    expected = one_process(case)
    for rank in ranks:
        for name in ("projection", "target"):
            assert rank[case][name].shape == (16, 6)
            torch.testing.assert_close(rank[case][name], expected[name], rtol=1e-9, atol=1e-9)
    alone = ranks[0]["sgd", False, momentum]["projection"]
    assert alone.shape == (8, 6)


def test_batches_of_different_sizes_are_refused_by_all(ranks: Results) -> None:
    for rank in ranks:
        assert rank["refused"] == "gather_projections needs batches of one size in all processes, not [3, 4]"


def test_one_process_gathers_nothing() -> None:
    with_gather, without = (one_process(("sgd", gather, True)) for gather in (True, False))
    assert torch.equal(with_gather["losses"], without["losses"])
    assert all(map(torch.equal, with_gather["state"].values(), without["state"].values()))


@pytest.mark.gpu
def test_with_synchronised_batch_norm(tmp_path: Path) -> None:
    """Two processes on one GPU over gloo; statistics are summed in another order than by one process."""
    ranks = in_two_processes(tmp_path, "cuda")
    for optimizer in whole_batch.OPTIMIZERS:
        learner = whole_batch.make_learner("cuda:0", seed=0, sync_batchnorm=False)
        expected = whole_batch.trained(learner, learner, optimizer, whole_batch.views("cuda:0"))
        assert_same_training(ranks, optimizer, expected, 1e-8)
