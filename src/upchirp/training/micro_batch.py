"""Micro-batches: how many images of a step are computed at once. They change memory and rounding, never the plan."""

from upchirp.curriculum import Plan
from upchirp.data import mix_group
from upchirp.errors import InputError
from upchirp.training.config import TrainConfig

_USUAL, _LEAST = 512, 32


def choose_micro_batch(config: TrainConfig, batch_size: int, ranks: int = 1) -> int:
    """The asked-for micro-batch, or the largest divisor of a rank's share up to a size that most devices hold.

    >>> choose_micro_batch(TrainConfig(), 4096), choose_micro_batch(TrainConfig(), 4096, ranks=64)
    (512, 64)

    Raises:
        InputError: a batch that the ranks cannot share, an asked-for size that does not fit a rank's share, or a share
            without a divisor of use.
    """
    group = mix_group(config.augmentation, batch_size)
    share, rest = divmod(batch_size, ranks)
    if rest or share % group:
        unit = ranks * group
        mixed = f", in groups of {group} that are mixed together" if group > 1 else ""
        raise InputError(
            f"batch size {batch_size} cannot be shared by {ranks} ranks{mixed}: "
            f"take {max(1, round(batch_size / unit)) * unit}, or another number of ranks"
        )
    of = f"batch size {batch_size}" if ranks == 1 else f"a rank's {share} of batch size {batch_size}"
    if config.micro_batch is not None:
        if share % config.micro_batch or config.micro_batch % group:
            raise InputError(
                f"micro-batch {config.micro_batch} does not fit {of}: "
                f"choose a divisor of {'it' if ranks == 1 else share} that is a multiple of {group}"
            )
        return config.micro_batch
    size = next((size for size in range(min(_USUAL, share), 0, -1) if _fits(size, share, group)), share)
    if size < min(_LEAST, share):
        better = max(1, round(share / 64)) * 64 * ranks
        raise InputError(
            f"{of} has no divisor from {_LEAST} to {_USUAL} to compute it "
            f"in parts: take {better}, or give --micro-batch"
        )
    return size


def micro_batches(config: TrainConfig, plan: Plan, ranks: int = 1) -> dict[int, int]:
    """The micro-batch of each bandwidth of a plan, on every rank.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> micro_batches(TrainConfig(), plan(efficienttrain_plus_plus(), epochs=9, batch_size=768, early_batch="auto"))
    {96: 384, 160: 512, 224: 384}

    Raises:
        InputError: as `choose_micro_batch` does, for any stage.
    """
    return {stage.bandwidth: choose_micro_batch(config, stage.batch_size, ranks) for stage in plan.stages}


def _fits(size: int, share: int, group: int) -> bool:
    return share % size == 0 and size % group == 0
