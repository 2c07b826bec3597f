"""Two processes with half a batch each train pixels as one does with the whole batch, positives or not."""

from pathlib import Path
from typing import Any

import pytest

from byol.core.positives import positive_pairs
from tests.core import pixel_whole_batch
from tests.core.pixel_whole_batch import CASES, MATCHED, batches
from tests.core.test_whole_batch import Results, assert_same_training, in_two_processes
from tests.core.whole_batch import GROUP_NORM, trained


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return in_two_processes(tmp_path_factory.mktemp("ranks"), "cpu", "pixel_whole_batch")


def one_process(device: str = "cpu", **settings: Any) -> dict[str, Any]:
    learner = pixel_whole_batch.make_learner(0, device, **settings)
    return trained(learner, learner, "sgd", batches(device))


def test_the_images_with_positives_are_few_here_and_many_there() -> None:
    for (view1, view2), matched in zip(batches(), MATCHED, strict=True):
        has_pairs = positive_pairs(view1, view2, (4, 4)).any(dim=2).any(dim=1)
        assert has_pairs.nonzero().flatten().tolist() == matched


@pytest.mark.parametrize("case", CASES)
def test_without_cross_sample_statistics(case: str, ranks: Results) -> None:
    """The mean is of the matched images of both; where neither has any, the loss of pixels is 0."""
    results = [rank["group"][case] for rank in ranks]
    expected = one_process(**GROUP_NORM, **CASES[case])
    assert_same_training(results, expected)
    assert (expected["losses"][-1] == 0) == (CASES[case]["alpha"] == 0)
    assert results[0]["losses"][0] != results[1]["losses"][0], "each process has the loss of its own images"


@pytest.mark.parametrize("case", CASES)
def test_with_synchronised_batch_norm(case: str, ranks: Results) -> None:
    assert_same_training([rank["together"][case] for rank in ranks], one_process(**CASES[case]))


@pytest.mark.gpu
def test_with_synchronised_batch_norm_on_a_gpu(tmp_path: Path) -> None:
    """Two processes on one GPU, over gloo, as for BYOL."""
    ranks = in_two_processes(tmp_path, "cuda:0", "pixel_whole_batch")
    for name, case in CASES.items():
        assert_same_training([rank["together"][name] for rank in ranks], one_process("cuda:0", **case), 1e-8)
