"""How many loader workers the machine's shared memory has room for: batches come from them through /dev/shm."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from upchirp.curriculum import Plan

SHARED = Path("/dev/shm")
PREFETCHED = 2
"""Batches that each worker prepares ahead, torch's default."""
_USED_AT_MOST = 0.9
_MIB = 2**20


def room() -> int | None:
    """Bytes that this process may take of shared memory, of which torchrun's ranks on a machine have equal shares.

    None where there is no such folder.
    """
    try:
        free = shutil.disk_usage(SHARED).free
    except OSError:
        return None
    return int(_USED_AT_MOST * free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What one rank's batches take of shared memory at most: those that workers hold, and those of the step in work.

    >>> from upchirp.curriculum import constant, plan
    >>> made = plan(constant(10), epochs=1, dataset_size=64, batch_size=32, learning_rate=1e-3)
    >>> demand = Demand(plan=made, micro_batches={10: 16}, evaluated=8)
    >>> demand.bytes(2) == 3 * 10**2 * (2 * 2 * 16 + 32 + 2 * 2 * 8), demand.bytes(0)
    (True, 0)
    """

    plan: Plan
    """What is trained."""
    micro_batches: Mapping[int, int]
    """Images of a batch by bandwidth."""
    evaluated: int
    """Images of an evaluation's batch, at the final size."""
    ranks: int = 1
    """How many share a step."""
    full_size: bool = False
    """Whether training images come at the final size too."""
    pinned: bool = False
    """Whether a batch is copied as soon as it comes."""

    def bytes(self, workers: int) -> int:
        """What so many workers may need; without any nothing is shared."""
        if not workers:
            return 0
        ahead, plan = PREFETCHED * workers, self.plan
        images = [
            (plan.final_size if self.full_size else stage.bandwidth) ** 2
            * (ahead * self.micro_batches[stage.bandwidth] + (0 if self.pinned else stage.batch_size // self.ranks))
            for stage in plan.stages
        ]
        return 3 * (max(images) + plan.final_size**2 * ahead * self.evaluated)

    def workers(self, asked: int) -> tuple[int, str | None]:
        """As many of the workers as there is room for, and a line if these are fewer.

        What a run trains on does not depend on their number.
        """
        free, wanted = room(), self.bytes(asked)
        if free is None or wanted <= free:
            return asked, None
        fitting = next(count for count in range(asked, -1, -1) if self.bytes(count) <= free)
        instead = f"{fitting} of {asked} loader workers run" if fitting else "the training process loads by itself"
        return fitting, (
            f"shared memory ({SHARED}) has room for {free // _MIB} MiB of batches and {asked} workers may need "
            f"{-(-wanted // _MIB)} MiB: {instead}; give the container more (docker run --shm-size=8g), or take a "
            "smaller --micro-batch"
        )
