"""Stages of a plan, and the steps in them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from upchirp.curriculum.curriculum import Operator
from upchirp.curriculum.replay import Replay


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of steps with one bandwidth, one batch size and one learning-rate ceiling.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> first = plan(efficienttrain_plus_plus(), epochs=200).stages[0]
    >>> first.bandwidth, first.steps, first.batch_size, first.samples, first.progress
    (96, 68118, 4096, 279011328, (0.0, 0.2))
    """

    bandwidth: int
    """Side in pixels of the low-frequency input."""
    progress: tuple[float, float]
    """Progress at the start and at the end."""
    magnitude: tuple[float, float] | None
    """RandAugment magnitude at the start and at the end; None where there is no RandAugment."""
    steps: int
    """Optimizer steps."""
    batch_size: int
    """Samples in one optimizer step, over all ranks and micro-batches."""
    learning_rate: float
    """The ceiling: the highest learning rate that the schedule may reach in this stage."""
    cost_per_sample: float
    """Cost of one sample relative to one at the final size."""
    replay: Replay = field(default_factory=Replay)
    """Which images are fresh; by default all."""
    radius: float | None = None
    """Low-pass filter of the input, in periods per image."""
    operator: Operator | None = None
    """What reduces images to the bandwidth; None leaves it to the run."""
    transform: str | None = None
    """Name of what is done with the finished batch."""

    @property
    def samples(self) -> int:
        """Images seen."""
        return self.steps * self.batch_size

    @property
    def fresh_samples(self) -> int:
        """Images newly prepared: decoded, cropped and augmented; the others come from the replay buffer."""
        return self.replay.fresh_before(self.steps, self.batch_size)

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the images counted; `Stage.from_dict` is the inverse."""
        return {**asdict(self), "samples": self.samples, "fresh_samples": self.fresh_samples}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Stage":
        """Rebuild a stage from plain data, where ranges are lists.

        Counts of images are derived, and so is what a device computes at once, which a priced plan says.
        """
        derived = ("samples", "fresh_samples", "micro_batch")
        own = {name: value for name, value in data.items() if name not in derived}
        ranges = {name: tuple(own[name]) for name in ("progress", "magnitude") if own[name] is not None}
        # Plans that were written before there was a buffer replay nothing.
        return cls(**{**own, **ranges, "replay": Replay(**own.get("replay", {})).if_used})

    @property
    def cost(self) -> float:
        """Cost of the stage, in samples at the final size."""
        return self.samples * self.cost_per_sample


@dataclass(frozen=True, slots=True)
class Step:
    """All that is decided about one optimizer step.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> step = plan(efficienttrain_plus_plus(), epochs=1, dataset_size=640, batch_size=64).step(11)
    >>> step.index, step.stage, step.bandwidth, step.batch_size, round(step.progress, 2)
    (11, 1, 160, 64, 0.2)
    """

    index: int
    """Position in the run, from 0."""
    stage: int
    """Index of the stage."""
    bandwidth: int
    """Side in pixels of the low-frequency input."""
    magnitude: float | None
    """RandAugment magnitude; None where there is no RandAugment."""
    batch_size: int
    """Samples in the step, over all ranks and micro-batches."""
    learning_rate: float
    """Learning rate of the step."""
    progress: float
    """Share of the run done before the step, in [0, 1)."""
    first_sample: int
    """Images seen before the step."""
    first_fresh: int
    """Fresh images before the step: the position of its first one in the order of the data."""
    offset: int
    """Steps of the stage before this one."""
    replay: Replay
    """Which images are fresh."""
    radius: float | None = None
    """Low-pass filter of the input, in periods per image."""
    operator: Operator | None = None
    """What reduces images to the bandwidth; None leaves it to the run."""
    transform: str | None = None
    """Name of what is done with the finished batch."""

    def fresh_rows(self, rows: range) -> range:
        """Which of some consecutive rows of the batch are fresh."""
        return self.replay.fresh_rows(self.offset, rows)
