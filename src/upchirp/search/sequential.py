"""Algorithm 2: the computational-constrained sequential search (Section 5.1).

| paper | here |
| --- | --- |
| N | `stages` |
| B, the candidates | `candidates` |
| Theta, Theta_i^B | the states that `train` keeps under the names of the trials |
| Fine-tune(... T_ft ...) | a trial's `tuning` |
| B^_1, ..., B^_N | the result |
"""

import math
from collections.abc import Sequence

from upchirp.errors import InputError
from upchirp.search.objectives import Objective
from upchirp.search.trial import Train, Trial


def sequential_search(
    train: Train,
    *,
    stages: int,
    candidates: Sequence[int],
    final_size: int,
    objective: Objective,
    halving: bool = False,
) -> tuple[int, ...]:
    """The computational-constrained sequential search, Algorithm 2: the best bandwidth of each stage, first to last.

    Each stage is trained from the previous stage's state with every candidate, fine-tuned at the final size for the
    score, and goes on from the best one's state before its fine-tuning. The last stage has the final size. Of equals
    the largest bandwidth wins: it spends the same compute in fewer steps.

    Args:
        train: trains and scores; see `upchirp.search.trial`.
        stages: number of stages N.
        candidates: bandwidths to choose from, pixels.
        final_size: bandwidth of the last stage, pixels.
        objective: what to maximise.
        halving: drop the worse half of a stage's candidates early, again and again (successive halving); see `rungs`.

    >>> from upchirp.search.objectives import objective
    >>> from upchirp.search.trial import Outcome
    >>> best = (32, 48, 48)  # of a made-up training, in which every other bandwidth costs accuracy
    >>> def train(trials):
    ...     return [
    ...         Outcome(80 - abs(trial.bandwidths[-1] - best[len(trial.bandwidths) - 1]), 1.0, 1.0) for trial in trials
    ...     ]
    >>> sequential_search(train, stages=4, candidates=(32, 48, 64), final_size=64, objective=objective("accuracy"))
    (32, 48, 48, 64)

    Raises:
        InputError: fewer than 2 stages, or no candidates.
    """
    check_search(stages, candidates, final_size)
    order = sorted(set(candidates), reverse=True)
    found: tuple[int, ...] = ()
    # Line 5. The last stage keeps the final size, so it is not solved for.
    for stage in range(stages - 1):
        left = order
        begin = 0.0
        for share in rungs(len(order)) if halving else [1.0]:
            # Line 6: Theta_i^B from Theta, at the learning rates of the stage, then fine-tuning at those that follow.
            trials = [Trial((*found, side), stage + begin, stage + share, tuning=share) for side in left]
            scores = dict(zip(left, map(objective, train(trials)), strict=True))
            begin = share
            if share < 1:
                kept = sorted(left, key=lambda side: -scores[side])[: math.ceil(len(left) / 2)]
                left = [side for side in left if side in kept and scores[side] > -math.inf] or left
        # Line 7: the next stage begins with the winner's state from before the fine-tuning.
        found = (*found, max(left, key=lambda side: scores[side]))
    return (*found, final_size)


def rungs(candidates: int) -> list[float]:
    """Shares of a stage after which successive halving drops the worse half, the last being the whole stage.

    >>> rungs(1), rungs(2), rungs(3), rungs(5)
    ([1.0], [0.5, 1.0], [0.5, 1.0], [0.25, 0.5, 1.0])
    """
    # Two candidates are told apart once; each doubling of their number needs a rung more.
    count = max(1, math.floor(math.log2(candidates))) if candidates > 1 else 0
    return [2.0**-k for k in range(count, -1, -1)]


def check_search(stages: int, candidates: Sequence[int], final_size: int) -> None:
    """Raise unless there is something to search.

    Raises:
        InputError: fewer than 2 stages, no candidates, or some outside 1 to the final size.
    """
    if stages < 2:
        raise InputError(f"a search over {stages} stages has nothing to solve for: give 2 or more")
    if not candidates:
        raise InputError("no candidate bandwidths: give at least one")
    if outside := [side for side in candidates if not 1 <= side <= final_size]:
        raise InputError(f"candidate bandwidth {outside[0]}: it must lie in 1 to the final size, {final_size}")
