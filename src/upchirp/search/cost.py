"""The cost of a search, known before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from upchirp.curriculum import Axis
from upchirp.search.sequential import rungs
from upchirp.search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a search costs."""

    trainings: int
    """How many candidates are trained; parts of a training in Algorithm 2, whole ones in Algorithm 1."""
    cost: float
    """What they cost together, fine-tuning included: equivalent epochs, or seconds by rates that know the speeds."""
    exact: bool
    """Whether it is known; else it is the most that the search can cost."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What trials cost, by their settings: in equivalent epochs, or in seconds.

    >>> rates = Rates(stages=5, epochs=200, tuning=10, axis="compute", relative={96: 0.18, 224: 1.0})
    >>> rates.of(Trial((96,), 0, 1, tuning=1))
    50.0
    """

    stages: int
    """Number of stages N."""
    epochs: float
    """Length T of a whole training: equivalent epochs, or real passes on the axis `samples`."""
    tuning: float
    """Equivalent epochs T_ft of a whole fine-tuning."""
    axis: Axis
    """What all stages have the same share of."""
    relative: Mapping[int, float] = field(hash=False)
    """Cost of a sample at a bandwidth relative to one at the final size."""
    pass_seconds: Mapping[int, float] | None = field(default=None, hash=False)
    """Seconds of a pass over the images at each bandwidth; without it costs are equivalent epochs."""

    def of(self, trial: Trial) -> float:
        """The cost of a trial, up to the rounding to whole steps."""
        tuning = self.tuning * trial.tuning
        if self.pass_seconds is not None:
            tuning *= self.pass_seconds[max(self.pass_seconds)]
        return self.training(trial) + tuning

    def training(self, trial: Trial) -> float:
        """The same without fine-tuning."""
        return (
            self.epochs
            / self.stages
            * sum(
                max(0.0, min(stage + 1.0, trial.end) - max(float(stage), trial.begin)) * self._unit(side)
                for stage, side in enumerate(trial.bandwidths)
            )
        )

    def sequential(self, candidates: tuple[int, ...], *, halving: bool = False) -> Price:
        """What Algorithm 2 costs: every candidate of every stage but the last.

        >>> rates = Rates(stages=5, epochs=200, tuning=10, axis="compute", relative={})
        >>> rates.sequential((96, 160, 224))
        Price(trainings=12, cost=600.0, exact=True)
        """
        # Where candidates differ in cost, the dearest ones might be the survivors.
        left = sorted(candidates, key=lambda side: -self._unit(side))
        trainings, spent, begin = 0, 0.0, 0.0
        exact = True
        for share in rungs(len(candidates)) if halving else [1.0]:
            trainings += len(left)
            spent += sum(self.of(Trial((side,), begin, share, tuning=share)) for side in left)
            alike = self.axis == "compute" and self.pass_seconds is None
            exact = exact and (len(left) == len(candidates) or alike)
            begin, left = share, left[: -(-len(left) // 2)]
        stages = self.stages - 1
        return Price(trainings=stages * trainings, cost=stages * spent, exact=exact)

    def greedy(self, candidates: tuple[int, ...], final_size: int, *, baseline_known: bool = False) -> Price:
        """The most that Algorithm 1 costs, over all ways that its trainings can end.

        >>> rates = Rates(stages=3, epochs=9, tuning=0, axis="samples", relative={32: 0.25, 64: 1.0})
        >>> rates.greedy((32,), 64)
        Price(trainings=3, cost=20.25, exact=False)
        """
        levels = sorted({*candidates, final_size}, reverse=True)

        def whole(bandwidths: tuple[int, ...]) -> float:
            return self.of(Trial(bandwidths, 0.0, float(self.stages)))

        @cache
        def most(solved: int, level: int, settled: tuple[int, ...]) -> tuple[int, float]:
            """The most trainings, and the most compute, from a point of the search on; either may be another way."""
            if solved == 0 or level + 1 == len(levels):
                return 0, 0.0
            spent = whole((levels[level + 1],) * solved + settled)
            ways = (most(solved, level + 1, settled), most(solved - 1, level, (levels[level], *settled)))
            return 1 + max(way[0] for way in ways), spent + max(way[1] for way in ways)

        trainings, spent = most(self.stages - 1, 0, (final_size,))
        if not baseline_known:
            trainings, spent = trainings + 1, spent + whole((final_size,) * self.stages)
        return Price(trainings=trainings, cost=spent, exact=False)

    def _unit(self, bandwidth: int) -> float:
        """The cost of one epoch of the budget."""
        if self.pass_seconds is None:
            return 1.0 if self.axis == "compute" else self.relative[bandwidth]
        passes = 1 / self.relative[bandwidth] if self.axis == "compute" else 1.0
        return passes * self.pass_seconds[bandwidth]
