"""A check that runs ran at one speed: times are comparable only then."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, NamedTuple

from upchirp.curriculum import Plan

TOLERANCE = 0.15
"""Speeds at one size that differ by a larger share of the faster one were disturbed."""


class Work(NamedTuple):
    """What a step does, as far as its images per second depend on it."""

    bandwidth: int
    """Input side, pixels."""
    batch_size: int
    """Images in a step."""
    replays: int
    """Replayed batches for each fresh one."""
    operator: str | None = None
    """What reduces images to the bandwidth, where the stage has its own."""


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """Two runs that did the same work at different speeds."""

    bandwidth: int
    """Input side, pixels."""
    slow: str
    """The slower run."""
    slow_speed: float
    """Its images per second."""
    fast: str
    """The faster run."""
    fast_speed: float
    """Its images per second."""

    @property
    def share(self) -> float:
        """How much slower, as a share of the faster speed."""
        return 1 - self.slow_speed / self.fast_speed

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "share": self.share}


def steady_speeds(records: Sequence[Mapping[str, Any]], plan: Plan) -> dict[Work, float]:
    """Images per second for each kind of work: the median over the log's windows, by time.

    The first window of a stage is left out, because workers start and caches fill in it; work with no other window is
    left out with it.

    Args:
        records: a run's log lines of the kind `train`.
        plan: what it executed.
    """
    windows: dict[Work, list[tuple[float, float]]] = {}
    before = 0.0
    for stage, own in groupby(records, key=lambda record: int(record["stage"])):
        planned = plan.stages[stage]
        work = Work(planned.bandwidth, planned.batch_size, planned.replay.batches, planned.operator)
        for place, record in enumerate(own):
            seconds, before = record["train_seconds"] - before, record["train_seconds"]
            if place:
                windows.setdefault(work, []).append((record["images_per_second"], seconds))
    return {work: weighted_median(speeds) for work, speeds in windows.items()}


def weighted_median(values: Sequence[tuple[float, float]]) -> float:
    """The value below which half of the weight lies.

    >>> weighted_median([(100.0, 1.0), (5.0, 0.1), (110.0, 1.0)])
    100.0
    """
    half = sum(weight for _, weight in values) / 2
    passed = 0.0
    for value, weight in sorted(values):
        passed += weight
        if passed >= half:
            return value
    return max(value for value, _ in values)


def slowed(speeds: Mapping[str, Mapping[Work, float]]) -> set[str]:
    """The runs that did some work slower than the fastest at it, by more than the tolerance: their times tell little.

    >>> full = Work(64, 256, 0)
    >>> sorted(slowed({"a": {full: 1000.0}, "b": {full: 700.0}, "c": {full: 800.0}, "d": {full: 900.0}}))
    ['b', 'c']

    Args:
        speeds: of each run, by its name.
    """
    fastest = _fastest(speeds)
    return {
        name
        for name, own in speeds.items()
        if any(speed < (1 - TOLERANCE) * fastest[work][0] for work, speed in own.items())
    }


def disturbances(speeds: Mapping[str, Mapping[Work, float]]) -> list[Disturbance]:
    """For each kind of work the slowest and the fastest run, where they differ by more than the tolerance.

    >>> speeds = {"usual": {Work(64, 256, 0): 1000.0}, "curriculum": {Work(64, 256, 0): 700.0}}
    >>> [(each.slow, round(each.share, 2)) for each in disturbances(speeds)]
    [('curriculum', 0.3)]

    Args:
        speeds: of each run, by its name.
    """
    found = []
    for work, (fast, fast_name) in _fastest(speeds).items():
        slow, slow_name = min(_at(work, speeds))
        if slow < (1 - TOLERANCE) * fast:
            found.append(
                Disturbance(bandwidth=work.bandwidth, slow=slow_name, slow_speed=slow, fast=fast_name, fast_speed=fast)
            )
    return found


def _fastest(speeds: Mapping[str, Mapping[Work, float]]) -> dict[Work, tuple[float, str]]:
    """The highest speed at each kind of work, in its order, and which run had it."""
    return {work: max(_at(work, speeds)) for work in sorted({work for own in speeds.values() for work in own})}


def _at(work: Work, speeds: Mapping[str, Mapping[Work, float]]) -> list[tuple[float, str]]:
    return [(own[work], name) for name, own in speeds.items() if work in own]
