"""The number of loader workers that the machine's shared memory has room for."""

from dataclasses import dataclass

from upchirp.curriculum import Operator, Plan
from upchirp.data.settings import RGB, Channels, Prepare, image_side
from upchirp.data.workers.chunks import PREFETCHED, ChunkSize
from upchirp.data.workers.shared_memory import SHARED, room

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What the chunks that one rank's workers hold take of shared memory at least, in training and in an evaluation.

    >>> from upchirp.curriculum import constant, plan
    >>> made = plan(constant(10), epochs=1, dataset_size=64, batch_size=32, learning_rate=1e-3)
    >>> demand = Demand(plan=made)
    >>> demand.bytes(2) == 2 * (3 + 2) * 64 * 3 * 10**2, demand.bytes(0)
    (True, 0)
    """

    plan: Plan
    low_frequency: Operator = "lanczos"
    """What reduces training images: all but `lanczos` takes them at the final size, as evaluations do."""
    prepare: Prepare = "cpu"
    channels: Channels = RGB

    def bytes(self, workers: int) -> int:
        """What so many workers need; without any nothing is shared."""
        final_size = self.plan.final_size
        sides = {image_side(stage, self.low_frequency, final_size) for stage in self.plan.stages}
        training = max(ChunkSize(self.prepare, self.channels).bytes(side) for side in sides)
        evaluation = ChunkSize(channels=self.channels).bytes(final_size)
        # One more of training is being copied.
        return workers * ((PREFETCHED + 1) * training + PREFETCHED * evaluation)

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
            f"shared memory ({SHARED}) has room for {free // _MIB} MiB of images and {asked} workers need "
            f"{-(-wanted // _MIB)} MiB: {instead}; give the container more (docker run --shm-size=8g)"
        )
