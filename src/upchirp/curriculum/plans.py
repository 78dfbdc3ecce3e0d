"""Plans: a curriculum turned into stages with exact step counts, before any training."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from upchirp.curriculum.cost import Cost, name_of, pixels
from upchirp.curriculum.curriculum import Axis, Curriculum
from upchirp.curriculum.early_batch import CAP, EarlyBatch, batch_sizes, ceiling
from upchirp.curriculum.replay import BUFFER_IMAGES, GIB, Replay, ReplayMode
from upchirp.curriculum.schedule import LearningRate
from upchirp.curriculum.stage import Stage, Step
from upchirp.curriculum.table import plan_table
from upchirp.curriculum.warmup import WARMUP_PASSES, warmup_share
from upchirp.errors import InputError

__all__ = ["Plan", "Stage", "Step", "plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A printable, serialisable table of stages; training executes it and decides nothing.

    `print` shows the table, `repr` is what makes the plan anew.
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
        low, high = stage.magnitude
        return Step(
            index=index,
            stage=k,
            bandwidth=stage.bandwidth,
            magnitude=low + (high - low) * share,
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

        >>> from upchirp.curriculum import efficienttrain_plus_plus
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


def plan(
    curriculum: Curriculum,
    *,
    epochs: float | None = None,
    total_cost: float | None = None,
    dataset_size: int = 1_281_167,
    batch_size: int = 4096,
    learning_rate: float = 4e-3,
    schedule: LearningRate | None = None,
    cost: Cost = pixels,
    warmup_passes: float | None = None,
    early_batch: EarlyBatch | None = None,
    max_batch_size: int | None = None,
    lr_cap: float | None = None,
) -> Plan:
    """Turn a curriculum and a budget into stages with exact step counts (Section 5.1).

    Each boundary of the curriculum is hit as nearly as whole steps allow, and what one stage spends too much or too
    little the next one makes up, so the total meets the budget within one step.

    Args:
        curriculum: what to show when.
        epochs: the budget: equivalent epochs, or real passes if the curriculum's axis is `samples`.
        total_cost: the budget in units of `cost` instead, for instance seconds with a measured table.
        dataset_size: images in one pass; ImageNet-1K's by default.
        batch_size: samples in one optimizer step, at the final size.
        learning_rate: the ceiling that warm-up reaches and the cosine falls from, at the final size.
        schedule: shape of the learning rate over progress; by default Table 24's.
        warmup_passes: how long the learning rate rises, in passes over the data from the start, in place of the
            schedule's share; by default Table 24's 20 unless a schedule is given. A short run warms up for a fifth of
            itself at most, a bound of ours.
        cost: cost of one sample at a bandwidth.
        early_batch: larger batches below the final size (Section 5.3): `auto` for steps that all cost about the same,
            or one batch size for each bandwidth below the final size, smallest bandwidth first.
        max_batch_size: the largest batch that `auto` takes; by default the cost alone decides.
        lr_cap: the highest learning rate that a larger batch may raise the ceiling to, LR_max of Equation 2; by default
            twice `learning_rate`. The paper names no value: that one is ours.

    >>> from upchirp.curriculum import efficienttrain_plus_plus
    >>> [stage.steps for stage in plan(efficienttrain_plus_plus(), epochs=200).stages]
    [68118, 49045, 25023]
    >>> early = plan(efficienttrain_plus_plus(), epochs=200, early_batch="auto")
    >>> [(stage.steps, stage.batch_size, round(stage.learning_rate, 5)) for stage in early.stages]
    [(12385, 22528, 0.008), (24522, 8192, 0.00566), (25023, 4096, 0.004)]

    Raises:
        InputError: no budget or two, sizes below 1, a budget too small for one step in each stage, early batches that
            do not fit the curriculum, or a cap below the learning rate.
    """
    if (epochs is None) == (total_cost is None):
        raise InputError("give the budget either as epochs or as a total cost")
    for name, size in (("dataset size", dataset_size), ("batch size", batch_size)):
        if size < 1:
            raise InputError(f"{name} is {size}: it must be 1 or more")
    if warmup_passes is not None and not 0 <= warmup_passes < float("inf"):
        raise InputError(f"warm-up passes are {warmup_passes}: give 0 or more passes over the data")
    amounts = {"epochs": epochs, "total cost": total_cost, "learning rate": learning_rate, "lr cap": lr_cap}
    for name, amount in amounts.items():
        if amount is not None and not 0 < amount < float("inf"):
            raise InputError(f"{name} is {amount}: it must be a positive number")
    if lr_cap is not None and lr_cap < learning_rate:
        raise InputError(f"lr cap {lr_cap} is below the learning rate {learning_rate}: raise it, or leave it out")
    final = cost(curriculum.final_size)
    relative = {bandwidth: cost(bandwidth) / final for bandwidth in curriculum.bandwidths}
    unit = relative if curriculum.axis == "compute" else dict.fromkeys(relative, 1.0)
    sizes = batch_sizes(curriculum, relative, batch_size=batch_size, early=early_batch, max_batch_size=max_batch_size)
    budget = _budget(curriculum, epochs, total_cost, dataset_size, final, relative)

    boundaries = [0.0, *(phase.end for phase in curriculum.phases)]
    stages: list[Stage] = []
    spent = 0.0
    for phase, start, end in zip(curriculum.phases, boundaries, boundaries[1:], strict=False):
        size = sizes[phase.bandwidth]
        per_step = unit[phase.bandwidth] * size
        steps = round((end * budget - spent) / per_step)
        if steps < 1:
            early = "early " if size > batch_size else ""
            raise InputError(
                f"the budget is too small for one step of batch size {size} at bandwidth {phase.bandwidth} "
                f"(progress {start:g} to {end:g}): raise the budget or lower the {early}batch size"
            )
        spent += steps * per_step
        stages.append(
            Stage(
                bandwidth=phase.bandwidth,
                progress=(start, end),
                magnitude=phase.magnitudes or (curriculum.magnitude_at(start), curriculum.magnitude_at(end)),
                steps=steps,
                batch_size=size,
                learning_rate=ceiling(
                    size, final_batch=batch_size, learning_rate=learning_rate, cap=lr_cap or CAP * learning_rate
                ),
                cost_per_sample=relative[phase.bandwidth],
                radius=phase.radius,
                operator=phase.operator,
                transform=phase.transform or curriculum.transform,
            )
        )
    if warmup_passes is None and schedule is None:
        warmup_passes = WARMUP_PASSES
    schedule = schedule or LearningRate()
    if warmup_passes is not None:
        schedule = replace(schedule, warmup=warmup_share(stages, warmup_passes * dataset_size))
    return Plan(
        curriculum=curriculum.name,
        axis=curriculum.axis,
        cost=name_of(cost),
        dataset_size=dataset_size,
        final_size=curriculum.final_size,
        stages=tuple(stages),
        schedule=schedule,
    )


def _budget(
    curriculum: Curriculum,
    epochs: float | None,
    total_cost: float | None,
    dataset_size: int,
    final: float,
    relative: Mapping[int, float],
) -> float:
    """The budget in the unit of the curriculum's axis: samples, or samples at the final size."""
    if epochs is not None:
        return epochs * dataset_size
    assert total_cost is not None
    if curriculum.axis == "compute":
        return total_cost / final
    return total_cost / (final * mean_cost(curriculum, relative))


def mean_cost(curriculum: Curriculum, relative: Mapping[int, float] | None = None) -> float:
    """The mean over progress of what an image costs, relative to the final size; on the axis `samples` the run's.

    Args:
        curriculum: the phases.
        relative: cost of an image by bandwidth, relative to the final size; by default that of pixels.

    >>> from upchirp.curriculum import efficienttrain
    >>> round(300 * mean_cost(efficienttrain()), 1)
    195.9
    """
    relative = relative or {side: pixels(side) / pixels(curriculum.final_size) for side in curriculum.bandwidths}
    starts = [0.0, *(phase.end for phase in curriculum.phases)]
    return sum(
        (phase.end - start) * relative[phase.bandwidth] for phase, start in zip(curriculum.phases, starts, strict=False)
    )
