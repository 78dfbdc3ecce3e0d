"""Watching how long a run waits for data, and telling it what to do about it."""

from dataclasses import dataclass

import torch

from upchirp.curriculum import Plan, Step
from upchirp.data import Source
from upchirp.training.assets.data import packing_helps
from upchirp.training.probing.waiting import ADVISED_SHARE, Supply
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.run_groups import Loading

_STEADY_STEPS = 10
"""Steps after which the share of time spent waiting says something."""


@dataclass(kw_only=True, eq=False)
class Adviser:
    """Watches how long a run waits for data, and advises once in a stage."""

    plan: Plan
    replay_final: bool
    """Whether images are replayed at the final size too."""
    supply: Supply

    @classmethod
    def of(cls, asked: Loading, config: TrainConfig, plan: Plan, source: Source, device: torch.device) -> "Adviser":
        """The adviser of a run, by what was asked for and what was chosen."""
        # What was measured needs no advice.
        unmeasured = device.type == "cuda" and asked.prepare == "cpu"
        supply = Supply(
            workers=config.processes,
            device_helps=unmeasured and config.device_could_prepare and config.augmentation.channels.photographs,
            packing_helps=packing_helps(source, plan.final_size),
        )
        return cls(plan=plan, replay_final=config.replay_final, supply=supply)

    def __post_init__(self) -> None:
        self.wait = SteadyWait()
        self._advised: set[int] = set()

    def advise(self, step: Step, train_seconds: float) -> str | None:
        """What to do about the time spent waiting, after a step; nothing if it is short, or was said in this stage."""
        share = self.wait.take_share(train_seconds)
        if share <= ADVISED_SHARE or step.stage in self._advised:
            return None
        self._advised.add(step.stage)
        replays = step.bandwidth < self.plan.final_size or self.replay_final
        replay = self.plan.stages[step.stage].replay.batches if replays else None
        return self.supply.advice(share, bandwidth=step.bandwidth, replay=replay)


class SteadyWait:
    """Share of the time spent waiting for data, over enough steps of one stage, however often a log line is due.

    >>> wait, seconds = SteadyWait(), 60.0
    >>> wait.add(stage=0, train_seconds=seconds, wait_seconds=15.0)
    >>> for _ in range(9):
    ...     seconds += 1.0
    ...     wait.add(stage=0, train_seconds=seconds, wait_seconds=0.25)
    >>> wait.take_share(seconds), wait.take_share(seconds)
    (0.25, 0.0)
    """

    def __init__(self) -> None:
        self._stage = -1
        self._restart(0.0)

    def add(self, *, stage: int, train_seconds: float, wait_seconds: float) -> None:
        """Count a step that ended at a training time."""
        if stage != self._stage:
            # Without the time of a stage's first step, in which workers may have started.
            self._stage = stage
            self._restart(train_seconds)
        else:
            self._wait_seconds += wait_seconds
        self._steps += 1

    def take_share(self, train_seconds: float) -> float:
        """The share until a training time, from which counting begins anew; 0 while there are too few steps."""
        if self._steps < _STEADY_STEPS:
            return 0.0
        share = self._wait_seconds / max(train_seconds - self._begun, 1e-9)
        self._restart(train_seconds)
        return share

    def _restart(self, train_seconds: float) -> None:
        self._begun = train_seconds
        self._steps = 0
        self._wait_seconds = 0.0
