"""Which images are fitted, which decide about settings, which are scored."""

from dataclasses import dataclass

from torch import Tensor

from byol.data.images import Subset, in_memory
from byol.data.source import Source
from byol.data.splits import HOLDOUT, holdout_split
from byol.errors import UserError
from byol.types import ImageSet


@dataclass(frozen=True)
class Task:
    """A labelled source, divided."""

    data: str
    train: ImageSet
    """All that may be fitted."""
    fit: Tensor
    """Indices into train of what is fitted while settings are chosen."""
    choice: Tensor
    """Indices of the others, on which they are chosen."""
    scored: ImageSet
    split: str
    """The name of `scored`: test or holdout."""

    @property
    def labels(self) -> Tensor:
        """[N] of train."""
        assert self.train.labels is not None
        return self.train.labels

    @property
    def truth(self) -> Tensor:
        """[M] labels of what is scored; only the final scoring may read them."""
        assert self.scored.labels is not None
        return self.scored.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """One for each class: its number where the train split does not name it."""
        named = tuple(self.train.class_names or ())
        return (*named, *map(str, range(len(named), self.num_classes)))

    @property
    def num_classes(self) -> int:
        """How many classes the train split names or has."""
        named = len(self.train.class_names or ())
        return max(named, 1 + int(self.labels.max()))


def divide(source: Source, holdout: float) -> Task:
    """Divide a source.

    With a labelled test split, that is scored, and settings are chosen on the run's hold-out (10 %
    of train where the run kept none). Without one, the hold-out is scored and stays untouched until
    then: settings are chosen on 10 % of the rest.

    Args:
        source: its train split has labels.
        holdout: what the run held out, as `holdout_split` takes it.

    Raises:
        UserError: there are no labels, or nothing to score.
    """
    labels = source.train.labels
    if labels is None:
        what = (
            "byol embed needs none"
            if source.train.masks is None
            else "its masks are for --protocol segmentation"
        )
        raise UserError(f"{source.name} has no labels: there is nothing to evaluate against ({what})")
    if source.test is not None and source.test.labels is not None:
        fit, choice = holdout_split(len(source.train), labels, holdout or HOLDOUT, 0)
        return Task(source.name, in_memory(source.train), fit, choice, in_memory(source.test), "test")
    rest, held = holdout_split(len(source.train), labels, holdout, 0)
    if len(held) == 0:
        raise UserError(
            f"{source.name} has no test split and nothing is held out of train: there is nothing to score"
        )
    train, scored = in_memory(Subset(source.train, rest)), in_memory(Subset(source.train, held))
    fit, choice = holdout_split(len(rest), labels[rest], HOLDOUT, 0)
    return Task(source.name, train, fit, choice, scored, "holdout")
