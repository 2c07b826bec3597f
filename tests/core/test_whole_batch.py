"""Two processes with half a batch each do what one does with the whole batch."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from byol.core.learner import BYOL
from tests.core import whole_batch
from tests.core.whole_batch import CASES, GROUP_NORM, Case
from tests.programs import finished

PROJECT = Path(__file__).parents[2]
Results = tuple[dict[str, Any], dict[str, Any]]


def in_two_processes(folder: Path, device: str, module: str = "whole_batch") -> Results:
    command = [sys.executable, "-m", f"tests.core.{module}", folder, device]
    done = finished(command, 240, PROJECT)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(folder / f"{rank}.pt") for rank in (0, 1))
    return first, second


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=tolerance, atol=tolerance), name


def assert_same_training(
    ranks: list[dict[str, Any]], expected: dict[str, Any], tolerance: float = 1e-10
) -> None:
    """Compare loss (averaged over the processes), gradients of each step, weights and target at the end."""
    losses = (ranks[0]["losses"] + ranks[1]["losses"]) / 2
    assert torch.allclose(losses, expected["losses"], rtol=tolerance, atol=tolerance)
    assert expected["losses"].std() > 1e-6
    for rank in ranks:
        for found, gradient in zip(rank["gradients"], expected["gradients"], strict=True):
            assert_same(found, gradient, tolerance)
        assert_same(rank["state"], expected["state"], tolerance)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return in_two_processes(tmp_path_factory.mktemp("ranks"), "cpu")


def one_process(case: Case, device: str = "cpu", **settings: Any) -> dict[str, Any]:
    learner = whole_batch.make_learner(device, seed=0, **settings, **case.options)
    return whole_batch.trained(learner, learner, case.optimizer, whole_batch.views(device))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_without_cross_sample_statistics(case: Case, ranks: Results) -> None:
    """The seed 001's gather left the gradients divided by the number of processes."""
    results = [rank["group"][str(case)] for rank in ranks]
    assert_same_training(results, one_process(case, **GROUP_NORM))
    same = torch.equal(results[0]["losses"], results[1]["losses"])
    assert same == case.gather, "the gathered loss is the whole batch's on each process"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_with_synchronised_batch_norm(case: Case, ranks: Results) -> None:
    """The state holds the running statistics, of the target too."""
    assert_same_training([rank["together"][str(case)] for rank in ranks], one_process(case))


@pytest.mark.gpu
def test_with_synchronised_batch_norm_on_a_gpu(tmp_path: Path) -> None:
    """Two processes on one GPU, over gloo: NCCL wants a GPU for each. Sums are in an order of their own."""
    ranks = in_two_processes(tmp_path, "cuda:0")
    for case in CASES:
        assert_same_training(
            [rank["together"][str(case)] for rank in ranks], one_process(case, "cuda:0"), 1e-8
        )


def test_batch_norms_are_synchronised_where_each_process_has_a_gpu(ranks: Results) -> None:
    for rank in ranks:
        synchronized, of = zip(*(rank["norms"][wanted] for wanted in (None, True, False)), strict=True)
        assert synchronized == (of[0], of[0], 0) and of == (7, 7, 7)


def test_without_synchronisation_each_process_has_its_own_statistics(ranks: Results) -> None:
    """The seed 002 synchronises its predictor all the same, and stops there on a CPU.

    Running statistics are the first process's: every forward pass begins with a copy of them.
    """
    learners = [whole_batch.make_learner("cpu", seed=0) for _ in ranks]
    optimizers = [whole_batch.make_optimizer(learner, "sgd") for learner in learners]
    halves = whole_batch.views("cpu").chunk(2, dim=2)
    for step in range(whole_batch.STEPS):
        for theirs, ours in zip(learners[1].buffers(), learners[0].buffers(), strict=True):
            theirs.copy_(ours)
        average_gradients(learners, [half[step] for half in halves])
        for learner, optimizer, rank in zip(learners, optimizers, ranks, strict=True):
            gradients = {name: p.grad for name, p in learner.named_online_parameters()}
            assert_same(rank["apart"]["gradients"][step], gradients, 1e-10)  # type: ignore[arg-type]
            optimizer.step()
            learner.update_moving_average()
    for learner, rank in zip(learners, ranks, strict=True):
        assert_same(rank["apart"]["state"], whole_batch.state_of(learner), 1e-10)
    means = [rank["apart"]["state"]["online.backbone.net.1.running_mean"] for rank in ranks]
    assert not torch.allclose(*means, rtol=1e-3), "the last step's, on halves of their own"


def average_gradients(learners: list[BYOL], halves: list[Tensor]) -> None:
    """Give learners of the same weights the mean of the gradients of each one's own views [2,B,C,H,W]."""
    for learner, views in zip(learners, halves, strict=True):
        learner.zero_grad()
        learner(*views).backward()
    for pair in zip(*(learner.online_parameters() for learner in learners), strict=True):
        mean = (pair[0].grad + pair[1].grad) / 2
        for parameter in pair:
            parameter.grad = mean.clone()


@pytest.mark.parametrize("momentum", [True, False])
def test_gathered_outputs_are_those_of_the_whole_batch(momentum: bool, ranks: Results) -> None:
    """Both views' projections [2B,D], the first view's first."""
    case = Case(momentum=momentum, gather=True)
    expected = one_process(case, **GROUP_NORM)
    for rank in ranks:
        for name in ("projection", "target"):
            found = rank["group"][str(case)][name]
            assert found.shape == (16, 6)
            torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-9)
    alone = ranks[0]["group"][str(Case(momentum=momentum))]["projection"]
    assert alone.shape == (8, 6)


def test_batches_of_different_sizes_are_refused_by_all(ranks: Results) -> None:
    for rank in ranks:
        assert rank["refused"] == "gather_projections needs batches of one size in all processes, not [3, 4]"


def test_one_process_gathers_nothing() -> None:
    with_gather, without = (one_process(Case(gather=gather), **GROUP_NORM) for gather in (True, False))
    assert torch.equal(with_gather["losses"], without["losses"])
    assert all(map(torch.equal, with_gather["state"].values(), without["state"].values()))
