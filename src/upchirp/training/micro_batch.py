"""Micro-batches: how many images of a step are computed at once. They change memory and rounding, never the plan."""

from upchirp.curriculum import Plan
from upchirp.data import mix_group
from upchirp.errors import InputError
from upchirp.training.config import TrainConfig

_USUAL, _LEAST = 512, 32


def choose_micro_batch(config: TrainConfig, batch_size: int) -> int:
    """The asked-for micro-batch, or the largest divisor of a batch up to a size that most devices hold.

    >>> choose_micro_batch(TrainConfig(), 4096)
    512

    Raises:
        InputError: an asked-for size that does not fit the batch, or a batch without a divisor of use.
    """
    group = mix_group(config.augmentation, batch_size)
    if config.micro_batch is not None:
        if batch_size % config.micro_batch or config.micro_batch % group:
            raise InputError(
                f"micro-batch {config.micro_batch} does not fit batch size {batch_size}: "
                f"choose a divisor of it that is a multiple of {group}"
            )
        return config.micro_batch
    size = next((size for size in range(min(_USUAL, batch_size), 0, -1) if _fits(size, batch_size, group)), batch_size)
    if size < min(_LEAST, batch_size):
        better = max(1, round(batch_size / 64)) * 64
        raise InputError(
            f"batch size {batch_size} has no divisor from {_LEAST} to {_USUAL} to compute it "
            f"in parts: take {better}, or give --micro-batch"
        )
    return size


def micro_batches(config: TrainConfig, plan: Plan) -> dict[int, int]:
    """The micro-batch of each bandwidth of a plan.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> micro_batches(TrainConfig(), plan(efficienttrain_plus_plus(), epochs=9, batch_size=768, early_batch="auto"))
    {96: 384, 160: 512, 224: 384}

    Raises:
        InputError: as `choose_micro_batch` does, for any stage.
    """
    return {stage.bandwidth: choose_micro_batch(config, stage.batch_size) for stage in plan.stages}


def _fits(size: int, batch_size: int, group: int) -> bool:
    return batch_size % size == 0 and size % group == 0
