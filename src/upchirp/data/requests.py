"""Requests: which image, at which bandwidth and magnitude, with which random numbers.

A request is a pure function of (seed, position in the run), so the data of a run depends neither on the number of
workers or ranks nor on interruptions. Positions count fresh images: what is replayed is not asked for again. Only which
image stands at a position may depend on more, the losses until then, if an `Order` selects.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch.utils.data import Sampler

from upchirp.curriculum import Operator, Plan, Stage, Step
from upchirp.curriculum.replay import RGB_BYTES
from upchirp.data.draws import pass_order, sample_seeds
from upchirp.data.settings import Reduced, image_side
from upchirp.errors import InputError
from upchirp.randomness import Stream, philox


class Request(NamedTuple):
    """Everything that decides one training image."""

    # The field hides tuple.index, which nobody asks of a request.
    index: int  # type: ignore[assignment]
    """Which image of the data set."""
    bandwidth: int
    """Side in pixels of the low-frequency input."""
    magnitude: float
    """RandAugment magnitude, 0 to 10."""
    seed: int
    """Seed of the random numbers for crop, flip and augmentation."""
    operator: Operator | None = None
    """What reduces it to the bandwidth; None leaves it to the run."""


class Order(Protocol):
    """Which image stands at each fresh position of a run, and how much its loss weighs."""

    @property
    def seed(self) -> int:
        """Seed of the run."""

    def reaches(self, end: int) -> bool:
        """Whether the positions before `end` are known."""

    def take(self, first: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Indices and weights of `count` known positions from `first`, 1 or more; both (count,)."""


@dataclass(frozen=True)
class WholePasses:
    """Pass after pass over all images, each in an order of its own: a pure function of the seed.

    >>> indices, weights = WholePasses(dataset_size=3, seed=0).take(2, 4)
    >>> sorted(indices[1:].tolist()), weights.tolist()
    ([0, 1, 2], [1.0, 1.0, 1.0, 1.0])
    """

    dataset_size: int
    """Images in one pass."""
    seed: int = 0
    """Seed of the run."""

    def reaches(self, end: int) -> bool:
        """All positions are known from the start."""
        return True

    def take(self, first: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Indices and weights of `count` positions from `first`, 1 or more; every image weighs 1."""
        numbers, offsets = np.divmod(np.arange(first, first + count), self.dataset_size)
        parts = [
            pass_order(self.dataset_size, self.seed, int(number))[offsets[numbers == number]]
            for number in np.unique(numbers)
        ]
        return np.concatenate(parts), np.ones(count, dtype=np.float32)


def fresh_positions(step: Step, rows: range | None = None) -> range:
    """Positions in the order of the data of the fresh ones among some rows of a step; of all rows by default."""
    rows = rows if rows is not None else range(step.batch_size)
    first = step.first_fresh + len(step.fresh_rows(range(rows.start)))
    return range(first, first + len(step.fresh_rows(rows)))


def requests_of(step: Step, order: Order, rows: range | None = None) -> list[Request]:
    """The requests of the fresh ones among some rows of one step's global batch; of all rows by default."""
    positions = fresh_positions(step, rows)
    if not positions:
        return []
    indices, _ = order.take(positions.start, len(positions))
    seeds = sample_seeds(order.seed, positions.start, len(positions))
    return [
        Request(index, step.bandwidth, step.magnitude or 0.0, sample_seed, step.operator)
        for index, sample_seed in zip(indices.tolist(), seeds.tolist(), strict=True)
    ]


def replacement(request: Request, dataset_size: int, attempt: int) -> Request:
    """The request that stands in for one whose image cannot be read; the same one on every run."""
    draw = philox(Stream.REPLACEMENTS, request.seed, attempt).random_raw()
    return request._replace(index=int(draw) % dataset_size)


class RequestSampler(Sampler[list[Request]]):
    """Batches of requests for one rank, from any step of a plan to its end.

    A global batch is cut into contiguous slices by rank and each slice into micro-batches. All ranks agree on the
    order, every image is asked for once in each pass, and a sampler that starts at step k yields what one that
    started at 0 yields from step k on. Only fresh images are asked for, and a batch without any is left out; a sampler
    that starts inside a stage with replay begins `first_step` with what the replay buffer holds at step k.

    Args:
        plan: the run.
        seed: seed of the run.
        start_step: the first step to yield.
        micro_batch: requests in one batch, or of each bandwidth; by default the rank's whole slice.
        rank: this process, from 0.
        world_size: number of processes.
        low_frequency: what reduces images where a stage names no operator; those that come at the final size let the
            replay buffer hold fewer.
        pixel_bytes: bytes of a pixel, which the replay buffer's bound goes by.
        order: which image when; by default whole passes. If it knows the run only in part, an iteration ends before the
            first step that needs more, and the next one may begin there: at `resume_step`.

    Raises:
        InputError: a batch size that ranks or micro-batches do not divide.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        seed: int = 0,
        start_step: int = 0,
        micro_batch: int | Mapping[int, int] | None = None,
        rank: int = 0,
        world_size: int = 1,
        low_frequency: Operator = "lanczos",
        pixel_bytes: int = RGB_BYTES,
        order: Order | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} of {world_size}: it must lie in 0 to {world_size - 1}")
        self.micro_batch: Mapping[int, int] | None = (
            dict.fromkeys(plan.bandwidths, micro_batch) if isinstance(micro_batch, int) else micro_batch
        )
        if self.micro_batch is not None and (missing := set(plan.bandwidths) - set(self.micro_batch)):
            raise InputError(f"no micro-batch for bandwidth {min(missing)}: give one for each bandwidth of the plan")
        for stage in plan.stages:
            _check_slices(stage.batch_size, world_size, self.micro_batch[stage.bandwidth] if self.micro_batch else None)
        self.plan = plan
        self.seed = seed
        self.order: Order = order if order is not None else WholePasses(plan.dataset_size, seed)
        self.start_step = start_step
        self.resume_step: int | None = None
        self.rank = rank
        self.world_size = world_size
        self.low_frequency: Operator = low_frequency
        self._pixel_bytes = pixel_bytes

    def slices(self, step: Step) -> Iterator[range]:
        """The rows of the step's global batch that this rank takes, one range for each micro-batch."""
        share = self.share(step.batch_size)
        size = self.batch_rows(step)
        return (range(row, row + size) for row in range(share.start, share.stop, size))

    def batch_rows(self, of: Step | Stage) -> int:
        """Rows of each micro-batch of a step or stage."""
        return self.micro_batch[of.bandwidth] if self.micro_batch else len(self.share(of.batch_size))

    def share(self, batch_size: int) -> range:
        """The rows of a global batch that this rank takes."""
        size = batch_size // self.world_size
        return range(self.rank * size, (self.rank + 1) * size)

    def window(self, stage: Stage) -> int:
        """How many fresh images of each row the replay buffer of a stage holds."""
        return stage.replay.window(stage.batch_size, self.image_side(stage), self._pixel_bytes)

    def image_side(self, of: Reduced) -> int:
        """Side in pixels of the images that workers give for a stage, a step or a request."""
        return image_side(of, self.low_frequency, self.plan.final_size)

    @property
    def first_step(self) -> int:
        """The step that holds the oldest image of the replay buffer at the start step; without replay that step."""
        return self.oldest_step(self.start_step)

    def oldest_step(self, start: int) -> int:
        """The step that holds the oldest image of the replay buffer when step `start` begins."""
        if start >= self.plan.total_steps:
            return start
        step = self.plan.step(start)
        if not step.replay.batches:
            return start
        # A cycle makes each row fresh once, so the last `window` cycles fill the buffer.
        return start - min(step.offset, self.window(self.plan.stages[step.stage]) * step.replay.cycle)

    def parts(self, begin: int | None = None) -> Iterator[tuple[Step, range]]:
        """The micro-batches from a step on, each as a step and its rows; by default from `first_step`."""
        begin = self.first_step if begin is None else begin
        return ((step, rows) for step in self.plan.steps(begin) for rows in self.slices(step))

    def fresh_parts(self, begin: int | None = None) -> Iterator[tuple[Step, range]]:
        """The micro-batches with fresh images, as far as their order is known; from `resume_step` by default."""
        for step, rows in self.parts(self.resume_step if begin is None else begin):
            if not self.order.reaches(fresh_positions(step).stop):
                return
            if step.fresh_rows(rows):
                yield step, rows

    def __iter__(self) -> Iterator[list[Request]]:
        return (requests_of(step, self.order, rows) for step, rows in self.fresh_parts())

    def __len__(self) -> int:
        """Batches of requests; with replay they are counted one by one."""
        if any(stage.replay.batches for stage in self.plan.stages):
            return sum(1 for step, rows in self.parts() if step.fresh_rows(rows))
        return self.micro_batches

    @property
    def micro_batches(self) -> int:
        """Micro-batches from the start step to the end of the plan, replayed ones too."""
        stages = self.plan.stages
        return sum(
            min(stage.steps, max(0, end - self.start_step))
            * (len(self.share(stage.batch_size)) // self.batch_rows(stage))
            for stage, end in zip(stages, accumulate(stage.steps for stage in stages), strict=True)
        )


def _check_slices(batch_size: int, world_size: int, micro_batch: int | None) -> None:
    if batch_size % world_size:
        raise InputError(f"batch size {batch_size} cannot be shared by {world_size} ranks: make it a multiple")
    share = batch_size // world_size
    if micro_batch is not None and (micro_batch < 1 or share % micro_batch):
        raise InputError(f"micro-batch {micro_batch} does not divide a rank's share of {share}: choose a divisor of it")


def place_of(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Which process of how many this is."""
    if rank is not None and world_size is not None:
        return rank, world_size
    if rank is not None or world_size is not None:
        raise InputError("rank and world_size belong together: give both, or neither")
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    if (started := os.environ.get("WORLD_SIZE", "1")) != "1":
        warnings.warn(
            f"{started} processes were started (WORLD_SIZE) and no process group is open, so each of them loads all "
            "rows: call torch.distributed.init_process_group() before the loader is made, or give rank and world_size",
            stacklevel=3,
        )
    return 0, 1
