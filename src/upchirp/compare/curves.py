"""Ratios at equal accuracy, read off two curves of accuracy against compute or time (Figure 7)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from upchirp.compare.equal_accuracy import Speedup, Timed, speedup_at_equal_accuracy
from upchirp.compare.uncertainty import SeedSpread


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A ratio at the accuracy of one measured budget."""

    name: str
    """Whose budget it is: the baseline's or the variant's."""
    budget: float
    """The budget."""
    accuracy: float
    """Its mean top-1, percent: where the other curve is read."""
    speedup: Speedup
    """The baseline's amount over the variant's."""


def readings(
    baseline: Mapping[float, Timed],
    curve: Mapping[float, Timed],
    *,
    names: tuple[str, str],
    spread: SeedSpread,
    time_spread: SeedSpread | None = None,
) -> list[Reading]:
    """The ratio at every accuracy that one curve measured and the other reaches, the baseline's accuracies first.

    An accuracy of the variant is read off the baseline's curve only between two of its budgets: beyond them nothing is
    known that the baseline's own accuracies do not say already.

    Args:
        baseline: its budgets, with what each takes: seconds, or multiply-adds in their place.
        curve: the variant's.
        names: of the two.
        spread: of accuracy between seeds.
        time_spread: of training time between seeds, relative to its mean; by default none.

    >>> from upchirp.compare.uncertainty import Measured
    >>> def budget(seconds, accuracy):
    ...     return Timed(seconds=[seconds], measured=Measured(accuracy=[accuracy], images=50_000))
    >>> usual = {0.5: budget(150, 46.0), 1.0: budget(300, 50.0)}
    >>> ours = {0.5: budget(100, 48.0), 1.0: budget(200, 52.0)}
    >>> found = readings(usual, ours, names=("usual", "ours"), spread=SeedSpread(variance=0, freedom=0))
    >>> [(each.name, each.budget, each.speedup.kind, each.speedup.ratio) for each in found]
    [('usual', 0.5, 'at least', 1.5), ('usual', 1.0, 'interpolated', 2.0), ('ours', 0.5, 'interpolated', 2.25)]

    Raises:
        InputError: a curve without budgets.
    """
    usual, name = names
    found = []
    for budget, point in sorted(baseline.items()):
        speedup = speedup_at_equal_accuracy(point, list(curve.values()), spread, time_spread=time_spread)
        found.append(Reading(name=usual, budget=budget, accuracy=point.measured.mean, speedup=speedup))
    for budget, point in sorted(curve.items()):
        seen = speedup_at_equal_accuracy(point, list(baseline.values()), spread, time_spread=time_spread)
        if seen.kind == "interpolated":
            found.append(
                Reading(name=name, budget=budget, accuracy=point.measured.mean, speedup=_from_the_other_side(seen))
            )
    return found


def _from_the_other_side(seen: Speedup) -> Speedup:
    """A ratio of the variant's amount over the baseline's, turned round."""
    return replace(
        seen,
        ratio=seen.ratio and 1 / seen.ratio,
        low=seen.high and 1 / seen.high,
        high=seen.low and 1 / seen.low,
        baseline_seconds=seen.seconds or 0.0,
        seconds=seen.baseline_seconds,
    )
