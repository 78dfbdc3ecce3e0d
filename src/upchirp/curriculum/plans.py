"""Plans: a curriculum turned into stages with exact step counts, before any training."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from upchirp.curriculum.cost import Cost
from upchirp.curriculum.curriculum import Axis
from upchirp.curriculum.replay import BUFFER_IMAGES, GIB, Replay, ReplayMode
from upchirp.curriculum.schedule import LearningRate
from upchirp.curriculum.stage import Stage, Step
from upchirp.curriculum.table import plan_table
from upchirp.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A printable, serialisable table of stages; training executes it and decides nothing.

    `print` shows the table, `repr` is what makes the plan anew.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> run = plan(efficienttrain_plus_plus(), epochs=10, dataset_size=6400, batch_size=64)
    >>> print(run)
    progress    B  steps  images  batch  magnitude  max lr  compute
      0-20 %   96  1,089  69,696     64    0.0-1.8  0.0005     20 %
     20-60 %  160    784  50,176     64    1.8-5.4  0.0005     40 %
    60-100 %  224    400  25,600     64    5.4-9.0  0.0005     40 %
    >>> run.total_steps, round(run.equivalent_epochs, 2)
    (2273, 10.0)
    """

    curriculum: str
    """Name of the curriculum."""
    axis: Axis
    """What progress measures."""
    cost: str
    """Name of the cost that the stages' `cost_per_sample` is counted in."""
    dataset_size: int
    """Training images in one pass."""
    final_size: int
    """Input side of the last stage, pixels."""
    stages: tuple[Stage, ...]
    """In the order of training."""
    schedule: LearningRate = field(default_factory=LearningRate)
    """Shape of the learning rate over progress."""

    def __str__(self) -> str:
        """The stages as a table, at most 80 columns wide."""
        return plan_table(self)

    @cached_property
    def _step_ends(self) -> list[int]:
        return list(accumulate(stage.steps for stage in self.stages))

    @cached_property
    def _sample_ends(self) -> list[int]:
        return list(accumulate(stage.samples for stage in self.stages))

    @cached_property
    def _fresh_ends(self) -> list[int]:
        return list(accumulate(stage.fresh_samples for stage in self.stages))

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._step_ends[-1]

    @property
    def total_samples(self) -> int:
        """Images seen in the whole run."""
        return self._sample_ends[-1]

    @property
    def total_fresh_samples(self) -> int:
        """Images newly prepared in the whole run."""
        return self._fresh_ends[-1]

    @property
    def equivalent_epochs(self) -> float:
        """Cost of the run in passes over the data at the final size."""
        return sum(stage.cost for stage in self.stages) / self.dataset_size

    def spent(self, steps: int, *, since: int = 0) -> float:
        """Equivalent epochs that so many steps of the run cost, without those before the step `since`.

        >>> from upchirp.curriculum import constant, plan
        >>> run = plan(constant(64), epochs=4, dataset_size=1000, batch_size=100)
        >>> run.spent(10), run.spent(15, since=10)
        (1.0, 0.5)
        """
        cost = 0.0
        for stage, end in zip(self.stages, self._step_ends, strict=True):
            within = max(0, min(steps, end) - max(since, end - stage.steps))
            cost += within * stage.batch_size * stage.cost_per_sample
        return cost / self.dataset_size

    @property
    def bandwidths(self) -> tuple[int, ...]:
        """The distinct bandwidths, in rising order."""
        return tuple(sorted({stage.bandwidth for stage in self.stages}))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The distinct sides that a model takes in training and at test time, in rising order."""
        return tuple(sorted({*self.bandwidths, self.final_size}))

    def speedup(self, baseline_epochs: float, cost: Cost) -> float:
        """How many times less the run costs than `baseline_epochs` passes at the final size.

        With `flops` as the cost this is the computation speed-up of Table 7.
        """
        spent = sum(stage.samples * cost(stage.bandwidth) for stage in self.stages)
        return baseline_epochs * self.dataset_size * cost(self.final_size) / spent

    def stage_at(self, step: int) -> int:
        """Index of the stage that holds the step."""
        return bisect_right(self._step_ends, step)

    def step(self, index: int) -> Step:
        """The step at a position of the run.

        Raises:
            InputError: `index` outside the run.
        """
        if not 0 <= index < self.total_steps:
            raise InputError(f"step {index} is outside the run of {self.total_steps} steps")
        k = self.stage_at(index)
        stage = self.stages[k]
        offset = index - (self._step_ends[k] - stage.steps)
        first, last = stage.progress
        share = offset / stage.steps
        progress = first + (last - first) * share
        magnitude = None
        if stage.magnitude is not None:
            low, high = stage.magnitude
            magnitude = low + (high - low) * share
        return Step(
            index=index,
            stage=k,
            bandwidth=stage.bandwidth,
            magnitude=magnitude,
            batch_size=stage.batch_size,
            learning_rate=self.schedule.at(progress, ceiling=stage.learning_rate),
            progress=progress,
            first_sample=self._sample_ends[k] - stage.samples + offset * stage.batch_size,
            first_fresh=self._fresh_ends[k] - stage.fresh_samples + stage.replay.fresh_before(offset, stage.batch_size),
            offset=offset,
            replay=stage.replay,
            radius=stage.radius,
            operator=stage.operator,
            transform=stage.transform,
        )

    def steps(self, start: int = 0) -> Iterator[Step]:
        """The steps from a position to the end of the run."""
        return (self.step(index) for index in range(start, self.total_steps))

    def with_replay(
        self,
        replays: int | Mapping[int, int],
        *,
        mode: ReplayMode = "batch",
        gib: float = 4.0,
        images: int | None = BUFFER_IMAGES,
        final: bool = False,
    ) -> "Plan":
        """The same steps with a replay buffer (Section 5.3); images decoded fall by up to `replays` + 1 times.

        Args:
            replays: replayed batches for each fresh one, or of each bandwidth; 0 where one is left out.
            mode: whole batches are fresh or replayed as in the paper's text, or `mixed` as in the released code.
            gib: bound of the buffer in GiB, over all processes.
            images: bound of the buffer in images; by default what the released code holds.
            final: replay in the stages at the final size too.

        >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
        >>> replaying = plan(efficienttrain_plus_plus(), epochs=200).with_replay(1)
        >>> [round(stage.fresh_samples / stage.samples, 3) for stage in replaying.stages]
        [0.5, 0.5, 1.0]

        Raises:
            InputError: a negative number, an unknown mode, or no memory at all.
        """
        if not 0 < gib < float("inf"):
            raise InputError(f"the replay buffer's bound is {gib} GiB: it must be a positive number")

        def batches(bandwidth: int) -> int:
            if bandwidth == self.final_size and not final:
                return 0
            return replays if isinstance(replays, int) else replays.get(bandwidth, 0)

        rules = [
            Replay(batches=batches(stage.bandwidth), mode=mode, buffer_bytes=round(gib * GIB), buffer_images=images)
            for stage in self.stages
        ]
        stages = zip(self.stages, (rule.if_used for rule in rules), strict=True)
        return replace(self, stages=tuple(replace(stage, replay=rule) for stage, rule in stages))

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `Plan.from_dict` is the inverse."""
        stages = [stage.to_dict() for stage in self.stages]
        own = {name: getattr(self, name) for name in ("curriculum", "axis", "cost", "dataset_size", "final_size")}
        data = {**own, "equivalent_epochs": self.equivalent_epochs, "schedule": asdict(self.schedule)}
        plain: dict[str, Any] = json.loads(json.dumps({**data, "stages": stages}))
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Plan":
        """Rebuild a plan from `to_dict`'s data.

        Raises:
            InputError: data that is no plan.
        """
        try:
            return cls(
                stages=tuple(Stage.from_dict(stage) for stage in data["stages"]),
                schedule=LearningRate(**data["schedule"]),
                **{name: data[name] for name in ("curriculum", "axis", "cost", "dataset_size", "final_size")},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a plan: {error!r}") from error
