"""Trials and their outcomes: the words that the algorithms and the trainings share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """One candidate's training, from the end of an earlier trial or from the start, and how it is tuned before scoring.

    Progress is counted in stages: 1.5 is the middle of the second one.

    >>> Trial((28, 46), begin=1, end=2, tuning=1).name, Trial((28, 46), begin=1, end=2, tuning=1).parent
    ('28-46', '28')
    """

    bandwidths: tuple[int, ...]
    """One for each stage up to the one that the trial ends in."""
    begin: float
    """Progress at which it begins, in stages; 0 starts from the initial weights."""
    end: float
    """Progress at which it ends, in stages."""
    tuning: float = 0.0
    """Length of the fine-tuning at the final size that follows for the score's sake, as a share of T_ft."""

    @property
    def name(self) -> str:
        """Its name in journals and folders: bandwidths, then `@` and the progress if it ends inside a stage."""
        inside = "" if self.end == len(self.bandwidths) else f"@{self.end:g}"
        return "-".join(map(str, self.bandwidths)) + inside

    @property
    def parent(self) -> str | None:
        """Name of the trial whose state before its fine-tuning this one begins with; None for the initial weights."""
        if self.begin == 0:
            return None
        whole = int(self.begin) == self.begin
        bandwidths = self.bandwidths[: int(self.begin)] if whole else self.bandwidths
        return Trial(bandwidths, 0.0, self.begin).name


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    accuracy: float
    """Percent of the images held out for the search that are classified right, at the final size."""
    loss: float
    """Mean training loss while it was fine-tuned, or over its last stage if it was not."""
    cost: float
    """Equivalent epochs of training, without fine-tuning."""


Train = Callable[[Sequence[Trial]], Sequence[Outcome]]
"""Trains independent trials, at the same time or one by one, and returns their outcomes in the same order.

All an algorithm knows of training: a table or a formula serves as well.
"""
