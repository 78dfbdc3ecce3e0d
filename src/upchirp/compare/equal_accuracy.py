"""The speed-up at equal accuracy, read off a curve of accuracy against time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from upchirp.errors import InputError


class Point(NamedTuple):
    """One budget: mean training time and mean accuracy over the seeds."""

    seconds: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How many times faster a curriculum reaches the baseline's accuracy."""

    ratio: float | None
    """Baseline's seconds over the curriculum's; `None` if it never gets there."""
    kind: Literal["interpolated", "at least", "not reached"]
    """`at least`: even the smallest budget beats the baseline, so the curve does not reach down to it."""
    baseline_accuracy: float
    """Mean top-1 of the baseline, percent."""
    baseline_seconds: float
    """Mean training time of the baseline."""
    seconds: float | None
    """Training time at which the curriculum has the baseline's accuracy."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def speedup_at_equal_accuracy(baseline: Point, curve: Sequence[Point]) -> Speedup:
    """Where the curve first crosses the baseline's accuracy, by straight lines between budgets.

    Args:
        baseline: time and accuracy of training as usual.
        curve: the curriculum's budgets.

    >>> speedup_at_equal_accuracy(Point(300, 50.0), [Point(150, 48.0), Point(250, 52.0)]).ratio
    1.5

    Raises:
        InputError: an empty curve.
    """
    if not curve:
        raise InputError("no budgets to compare: give at least one")
    points = sorted(curve)
    if points[0].accuracy >= baseline.accuracy:
        return _speedup(baseline, points[0].seconds, "at least")
    for before, after in pairwise(points):
        if before.accuracy < baseline.accuracy <= after.accuracy:
            share = (baseline.accuracy - before.accuracy) / (after.accuracy - before.accuracy)
            return _speedup(baseline, before.seconds + share * (after.seconds - before.seconds), "interpolated")
    return _speedup(baseline, None, "not reached")


def _speedup(
    baseline: Point, seconds: float | None, kind: Literal["interpolated", "at least", "not reached"]
) -> Speedup:
    return Speedup(
        ratio=None if seconds is None else baseline.seconds / seconds,
        kind=kind,
        baseline_accuracy=baseline.accuracy,
        baseline_seconds=baseline.seconds,
        seconds=seconds,
    )
