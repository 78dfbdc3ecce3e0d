"""The progress of a comparison, and the time that its runs still take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upchirp.curriculum import Plan
from upchirp.training import Event, Finished, Started, Stepped

Speeds = Mapping[str, Mapping[int, float]]
"""Images per second by model and bandwidth."""


def seconds_of(plan: Plan, speeds: Mapping[int, float], *, from_step: int = 0) -> float | None:
    """Training time of a plan from a step on; `None` if no speed is known.

    Args:
        plan: what is trained.
        speeds: images per second by bandwidth, as measured; where one is missing, the nearest bandwidth's is scaled by
            the number of pixels.
        from_step: where it begins.

    >>> from upchirp.curriculum import constant, plan
    >>> seconds_of(plan(constant(64), epochs=2, dataset_size=1000, batch_size=100), {64: 500.0})
    4.0
    """
    if not speeds:
        return None
    seconds, begin = 0.0, 0
    for stage in plan.stages:
        end = begin + stage.steps
        steps = end - max(begin, min(from_step, end))
        side = min(speeds, key=lambda known: (abs(known - stage.bandwidth), known))
        seconds += steps * stage.batch_size / speeds[side] * (stage.bandwidth / side) ** 2
        begin = end
    return seconds


class Pace:
    """An observer of all runs in turn that tells what is left of the comparison.

    Args:
        runs: the model's name and the plan of each, in their order.
        speeds: images per second by model and bandwidth, if they are known from before.
        done: steps of each run that were trained before; by default none.
    """

    def __init__(
        self, runs: Sequence[tuple[str, Plan]], speeds: Speeds | None = None, done: Sequence[int] = ()
    ) -> None:
        self.runs = runs
        self.number = 0
        self._done = done or [0] * len(runs)
        self._before = {model: dict(own) for model, own in (speeds or {}).items()}
        self._images: dict[tuple[str, int], float] = {}
        self._seconds: dict[tuple[str, int], float] = {}
        self._step = 0
        self._begun = 0.0
        self._wall = 0.0

    @property
    def speeds(self) -> dict[str, dict[int, float]]:
        """Images per second by model and bandwidth, all runs together."""
        speeds = {model: dict(own) for model, own in self._before.items()}
        for (model, side), seconds in self._seconds.items():
            speeds.setdefault(model, {})[side] = self._images[model, side] / max(seconds, 1e-9)
        return speeds

    def begin(self, number: int) -> None:
        """A run begins, counted from 1."""
        self.number, self._step = number, self._done[number - 1]

    def __call__(self, event: Event) -> None:
        """Take note of an event of the current run."""
        match event:
            case Started():
                self._step, self._begun = event.step, time.monotonic()
            case Stepped():
                key = (self.runs[self.number - 1][0], event.step.bandwidth)
                self._step = event.step.index + 1
                self._images[key] = self._images.get(key, 0) + event.step.batch_size
                self._seconds[key] = self._seconds.get(key, 0.0) + event.seconds
            case Finished():
                self._step = self.runs[self.number - 1][1].total_steps
                if self._begun:
                    self._wall, self._begun = self._wall + time.monotonic() - self._begun, 0.0

    def seconds_left(self) -> float | None:
        """What this run and those after it still take, evaluations included; `None` before anything is known."""
        speeds = self.speeds
        steps = [self._step, *self._done[self.number :]]
        left = [
            seconds_of(plan, speeds.get(model, {}), from_step=step)
            for (model, plan), step in zip(self.runs[self.number - 1 :], steps, strict=True)
        ]
        known = [seconds for seconds in left if seconds is not None]
        return self._overhead() * sum(known) if len(known) == len(left) else None

    def _overhead(self) -> float:
        """Wall-clock time of finished runs over that of their steps."""
        trained = sum(self._seconds.values())
        if not self._wall or not trained:
            return 1.0
        now = self._wall + (time.monotonic() - self._begun if self._begun else 0.0)
        return max(1.0, now / trained)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One run's turn in a comparison."""

    number: int
    """Which run it is, from 1."""
    runs: int
    """How many there are."""
    name: str
    """Variant, budget and seed."""
    pace: Pace
    """What is left."""
