"""The online probe, scored as it is: the classifier that was trained beside the backbone."""

from pathlib import Path

import torch.nn.functional as F

from byol.errors import UserError
from byol.evaluation.problem import Outcome, Problem
from byol.evaluation.target import Data, Target
from byol.weights import read_weights


def online(problem: Problem, probe: Path) -> Outcome:
    """Score queries by weight [K,D] and bias [K] of a file. Nothing is fitted, and no label is read."""
    state = read_weights(probe)
    return Outcome(F.linear(problem.queries, state["weight"], state["bias"]))


def online_probe_file(target: Target, data: Data | None) -> Path:
    """Return the file with the online probe of a run.

    Raises:
        UserError: there is none, or the data are others than those whose classes it learned.
    """
    if target.run is None or not target.run.online_probe.is_file():
        raise UserError("there is no online probe: --protocol online needs a run of pretrain --online-probe")
    if not target.is_own(data):
        raise UserError("--protocol online knows the classes of the run's own data only: leave out --data")
    return target.run.online_probe
