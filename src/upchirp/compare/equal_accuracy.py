"""The speed-up at equal accuracy, read off a curve of accuracy against time, and how sure it is."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from upchirp.compare.uncertainty import Difference, Measured, SeedSpread, contrast, difference, student_t
from upchirp.errors import InputError

_PLACES = 200
"""Places between two budgets at which the interval is looked for: half a percent of their distance."""

Kind = Literal["interpolated", "at least", "not reached", "within error", "disturbed"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Timed:
    """One budget of a curriculum: training time and accuracy of each seed."""

    seconds: Sequence[float]
    """Training time of each seed."""
    measured: Measured
    """Accuracy of each seed."""

    @property
    def mean_seconds(self) -> float:
        """Mean training time."""
        return math.fsum(self.seconds) / len(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How many times faster a curriculum reaches the baseline's accuracy."""

    ratio: float | None
    """Baseline's seconds over the curriculum's; `None` if it never gets there or nobody can tell."""
    low: float | None
    """Lower end of the 95 % interval; `None` where even the largest budget is not seen to be better."""
    high: float | None
    """Upper end; `None` where even the smallest budget is not seen to be worse."""
    kind: Kind
    """`at least`: even the smallest budget beats the baseline, so the curve does not reach down to it.
    `within error`: the accuracies that decide are no more apart than chance may put them.
    `disturbed`: the runs did not run at one speed."""
    baseline_accuracy: float
    """Mean top-1 of the baseline, percent."""
    baseline_seconds: float
    """Mean training time of the baseline."""
    seconds: float | None
    """Training time at which the curriculum has the baseline's accuracy."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def speedup_at_equal_accuracy(
    baseline: Timed, curve: Sequence[Timed], spread: SeedSpread, *, time_spread: SeedSpread | None = None
) -> Speedup:
    """Where the curve first crosses the baseline's accuracy, by straight lines between the means of its budgets.

    The interval holds every time around the crossing at which the line's difference from the baseline is within its
    own margin (the inversion of a test, as in Fieller's theorem), widened by the spread of the training times. It is
    withheld (`within error`) where neither of the two budgets around the crossing differs from the baseline by more
    than chance may do: a line between them says nothing.

    Args:
        baseline: training as usual.
        curve: the curriculum's budgets.
        spread: of accuracy between seeds.
        time_spread: of training time between seeds, relative to its mean; by default none.

    >>> def budget(seconds, accuracy):
    ...     return Timed(seconds=[seconds], measured=Measured(accuracy=[accuracy], images=50_000))
    >>> found = speedup_at_equal_accuracy(
    ...     budget(300, 50.0), [budget(150, 48.0), budget(250, 52.0)], SeedSpread(variance=0, freedom=0)
    ... )
    >>> found.ratio, round(found.low, 2), round(found.high, 2)
    (1.5, 1.4, 1.61)

    Raises:
        InputError: an empty curve.
    """
    if not curve:
        raise InputError("no budgets to compare: give at least one")
    points = sorted(curve, key=lambda point: point.mean_seconds)
    differences = [difference(point.measured, baseline.measured, spread) for point in points]
    of_time = _margin_of_time(baseline, points, time_spread)
    if differences[0].points >= 0:
        if not differences[0].seen:
            return _speedup(baseline, None, "within error")
        return _speedup(baseline, points[0].mean_seconds, "at least", of_time=of_time, latest=points[0].mean_seconds)
    for place, (before, after) in enumerate(pairwise(differences)):
        if before.points < 0 <= after.points:
            if not before.seen and not after.seen:
                return _speedup(baseline, None, "within error")
            earliest, latest = _reach(baseline, points, place, spread)
            share = before.points / (before.points - after.points)
            seconds = _between(points[place].mean_seconds, points[place + 1].mean_seconds, share)
            return _speedup(baseline, seconds, "interpolated", of_time=of_time, earliest=earliest, latest=latest)
    seen = all(each.seen for each in differences)
    return _speedup(baseline, None, "not reached" if seen else "within error")


def relative_time_spread(timed: Sequence[Timed]) -> SeedSpread:
    """The variance of training time between seeds relative to its mean, pooled over curricula and budgets."""
    squares = sum(
        float(np.sum((np.array(each.seconds) / each.mean_seconds - 1) ** 2)) for each in timed if each.mean_seconds > 0
    )
    freedom = sum(len(each.seconds) - 1 for each in timed)
    return SeedSpread(variance=squares / freedom if freedom else 0.0, freedom=freedom)


def _reach(
    baseline: Timed, points: Sequence[Timed], crossing: int, spread: SeedSpread
) -> tuple[float | None, float | None]:
    """The earliest and latest time around the crossing with no difference seen; none where the curve ends before."""
    line = [
        (
            _between(before.mean_seconds, after.mean_seconds, share),
            _on_the_line(baseline, before, after, share, spread),
            place,
        )
        for place, (before, after) in enumerate(pairwise(points))
        for share in np.linspace(0, 1, _PLACES + 1).tolist()
    ]
    start = next(k for k, (_, made, place) in enumerate(line) if place == crossing and made.points >= 0)
    earlier = (seconds for seconds, made, _ in reversed(line[:start]) if made.points < -made.margin)
    later = (seconds for seconds, made, _ in line[start:] if made.points > made.margin)
    return next(earlier, None), next(later, None)


def _on_the_line(baseline: Timed, before: Timed, after: Timed, share: float, spread: SeedSpread) -> Difference:
    parts = [(1 - share, before.measured), (share, after.measured), (-1.0, baseline.measured)]
    return contrast(parts, spread)


def _between(before: float, after: float, share: float) -> float:
    return before + share * (after - before)


def _margin_of_time(baseline: Timed, points: Sequence[Timed], spread: SeedSpread | None) -> float:
    """Half the width of the interval of a ratio of times, on the scale of its logarithm."""
    if spread is None or not spread.freedom:
        return 0.0
    fewest = min(len(point.seconds) for point in points)
    variance = spread.variance / len(baseline.seconds) + spread.variance / fewest
    return student_t(spread.freedom) * math.sqrt(variance)


def _speedup(
    baseline: Timed,
    seconds: float | None,
    kind: Kind,
    *,
    of_time: float = 0.0,
    earliest: float | None = None,
    latest: float | None = None,
) -> Speedup:
    whole = baseline.mean_seconds
    return Speedup(
        ratio=None if seconds is None else whole / seconds,
        low=None if seconds is None or latest is None else _end(whole / seconds, whole / latest, of_time),
        high=None if seconds is None or earliest is None else _end(whole / seconds, whole / earliest, of_time),
        kind=kind,
        baseline_accuracy=baseline.measured.mean,
        baseline_seconds=whole,
        seconds=seconds,
    )


def _end(ratio: float, end: float, of_time: float) -> float:
    """An end of the interval by accuracy, moved outwards by the error of the times, which is independent of it."""
    by_accuracy = math.log(end / ratio)
    outwards = math.hypot(by_accuracy, of_time)
    return ratio * math.exp(-outwards if end <= ratio else outwards)
