"""The batches of one step: taken from the loader when they are asked for, and kept until the step is done."""

import itertools
from collections.abc import Iterator

from upchirp.data import Batch, Corrupt, PassSummary


class StepBatches:
    """The batches of one step, which can be gone through again while the step is not done.

    Args:
        first: the first of them, and the seconds that the device waited for it.
        arriving: the others, with theirs; no more than the step's are taken.
    """

    def __init__(self, first: tuple[Batch, float], arriving: Iterator[tuple[Batch, float]]) -> None:
        self._batches = [first[0]]
        self._arriving = arriving
        self.step = first[0].step
        self.waited = first[1]

    def __iter__(self) -> Iterator[Batch]:
        for k in itertools.count():
            if k == len(self._batches) and not self._take():
                return
            yield self._batches[k]

    def _take(self) -> bool:
        item = None if self.complete else next(self._arriving, None)
        if item is None:
            return False
        self._batches.append(item[0])
        self.waited += item[1]
        return True

    @property
    def complete(self) -> bool:
        """Whether all batches of the step are here."""
        return self._batches[-1].completes_step

    @property
    def first_rows(self) -> range:
        """Rows of the first batch."""
        return self._batches[0].rows

    @property
    def rows(self) -> range:
        """Rows that are here."""
        return range(self._batches[0].rows.start, self._batches[-1].rows.stop)

    @property
    def weight(self) -> float:
        """What the rows weigh together."""
        return sum(len(each.rows) if each.weights is None else each.weights.sum().item() for each in self._batches)

    @property
    def corrupt(self) -> tuple[Corrupt, ...]:
        """Images of the step that were replaced."""
        return tuple(image for each in self._batches for image in each.corrupt)

    @property
    def passes(self) -> tuple[PassSummary, ...]:
        """Passes that began with the step."""
        return tuple(summary for each in self._batches for summary in each.passes)
