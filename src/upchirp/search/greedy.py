"""Algorithm 1: the greedy search (Section 4.3).

| paper | here |
| --- | --- |
| N | `stages` |
| a_0 | `baseline` |
| B^_1, ..., B^_N | the result |
"""

from collections.abc import Sequence

from upchirp.search.sequential import check_search
from upchirp.search.trial import Train, Trial


def greedy_search(
    train: Train,
    *,
    stages: int,
    candidates: Sequence[int],
    final_size: int,
    baseline: float | None = None,
    tolerance: float = 0.0,
) -> tuple[int, ...]:
    """The greedy search, Algorithm 1: the smallest bandwidth of each stage that keeps the baseline's accuracy.

    From the last stage to the first, the bandwidth of all stages up to it is lowered together while the accuracy at
    the end of a whole training stays at a_0. A stage begins with what the one after it settled for, so for M
    bandwidths, the final size among them, at most N + M - 2 trainings are needed, the baseline's included. If accuracy
    rises with every bandwidth this is the minimum of line 6, else the nearest point at which lowering fails.

    The last stage keeps the final size, the size at test time: line 5 runs from stage N - 1 down to the first.

    Args:
        train: trains whole schedules from scratch and scores them.
        stages: number of stages N.
        candidates: bandwidths to choose from, pixels.
        final_size: bandwidth of the baseline and of the last stage, pixels.
        baseline: a_0, percent; by default the final size is trained throughout to know it.
        tolerance: points of accuracy that may be lost.

    >>> from upchirp.search.trial import Outcome
    >>> def train(trials):  # made-up: pixels that are missing in late stages cost more
    ...     missing = [sum(k * (64 - side) for k, side in enumerate(trial.bandwidths)) for trial in trials]
    ...     return [Outcome(80 - points / 100, 1.0, 1.0) for points in missing]
    >>> greedy_search(train, stages=3, candidates=(32, 48), final_size=64, tolerance=0.2)
    (32, 48, 64)

    Raises:
        InputError: fewer than 2 stages, or no candidates.
    """
    check_search(stages, candidates, final_size)
    levels = sorted({*candidates, final_size}, reverse=True)

    def accuracy(bandwidths: Sequence[int]) -> float:
        (outcome,) = train([Trial(tuple(bandwidths), 0.0, float(stages))])
        return outcome.accuracy

    # Line 4.
    found = [final_size] * stages
    least = (accuracy(found) if baseline is None else baseline) - tolerance
    level = 0
    # Lines 5 to 7, backwards from the last stage that is solved for.
    for solved in range(stages - 1, 0, -1):
        while level + 1 < len(levels):
            lowered = [levels[level + 1]] * solved + found[solved:]
            if accuracy(lowered) < least:
                break
            found = lowered
            level += 1
    return tuple(found)
