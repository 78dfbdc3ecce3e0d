"""Early large batch (Section 5.3, Equation 2): larger batches and learning rates while the bandwidth is small."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from upchirp.curriculum.curriculum import Curriculum
from upchirp.errors import InputError

EarlyBatch = Literal["auto"] | Sequence[int]

CAP = 2.0
"""LR_max of Equation 2 as a multiple of the final size's rate, where none is given. The paper leaves it open; ours."""
_FINE = 16
"""Batch sizes that this divides are enlarged by halves, others by wholes: halves stay multiples of 8."""


def ceiling(batch_size: int, *, final_batch: int, learning_rate: float, cap: float) -> float:
    """The highest learning rate of a stage, Equation 2: LR_B = min(LR_final sqrt(BS_B / BS_final), LR_cap).

    Args:
        batch_size: samples in one step of the stage, BS_B.
        final_batch: samples in one step at the final size, BS_final.
        learning_rate: the highest learning rate at the final size, LR_final.
        cap: the highest learning rate that training is stable at, LR_cap.

    >>> ceiling(4096, final_batch=1024, learning_rate=2e-3, cap=8e-3)
    0.004
    >>> ceiling(4096, final_batch=1024, learning_rate=2e-3, cap=3e-3)
    0.003
    """
    return min(learning_rate * math.sqrt(batch_size / final_batch), cap)


def batch_sizes(
    curriculum: Curriculum,
    relative_cost: Mapping[int, float],
    *,
    batch_size: int,
    early: EarlyBatch | None = None,
    max_batch_size: int | None = None,
) -> dict[int, int]:
    """The batch size of each bandwidth of a curriculum.

    `auto` gives a step about the cost of a step at the final size: BS_final / relative cost, rounded to halves of
    BS_final, or to wholes of one that is no multiple of 16. So what can share out half a final batch, ranks and
    micro-batches, can share out the early ones too.

    Args:
        curriculum: the bandwidths.
        relative_cost: cost of one sample by bandwidth, relative to the final size.
        batch_size: samples in one step at the final size, and above it.
        early: `auto`, or one batch size for each bandwidth below the final size, smallest bandwidth first; none gives
            all bandwidths the same.
        max_batch_size: no batch is larger; by default the cost alone decides.

    >>> from upchirp.curriculum import efficienttrain_plus_plus
    >>> cost = {side: (side / 224) ** 2 for side in (96, 160, 224)}
    >>> batch_sizes(efficienttrain_plus_plus(), cost, batch_size=1024, early="auto")
    {96: 5632, 160: 2048, 224: 1024}
    >>> batch_sizes(efficienttrain_plus_plus(), cost, batch_size=1024, early=[4096, 2048])
    {96: 4096, 160: 2048, 224: 1024}

    Raises:
        InputError: another number of sizes than of bandwidths below the final size, a size below the final batch, or
            one above the maximum.
    """
    if max_batch_size is not None and max_batch_size < batch_size:
        raise InputError(f"max batch size {max_batch_size} is below the batch size {batch_size}: raise it")
    sizes = dict.fromkeys(curriculum.bandwidths, batch_size)
    sides = [side for side in curriculum.bandwidths if side < curriculum.final_size]
    if early is None:
        return sizes
    if early == "auto":
        return sizes | {side: _of_equal_cost(relative_cost[side], batch_size, max_batch_size) for side in sides}
    if isinstance(early, str):
        raise InputError(f"early batch {early!r} is unknown: give auto, or a batch size for each early bandwidth")
    if len(early) != len(sides):
        listed = f" ({', '.join(map(str, sides))})" if sides else ""
        raise InputError(
            f"early batch gives {len(early)} batch size{'' if len(early) == 1 else 's'}, but {curriculum.name} has "
            f"{len(sides)} bandwidth{'' if len(sides) == 1 else 's'} below {curriculum.final_size}{listed}: "
            f"give one for each, smallest bandwidth first, or auto"
        )
    for size in early:
        if size < batch_size:
            raise InputError(f"early batch {size} is below the batch size {batch_size}: early batches are larger")
        if max_batch_size is not None and size > max_batch_size:
            raise InputError(f"early batch {size} is above the max batch size {max_batch_size}: lower it")
    return sizes | dict(zip(sides, early, strict=True))


def _of_equal_cost(relative_cost: float, batch_size: int, most: int | None) -> int:
    """The batch whose step costs about what a final step costs, and no smaller than a final batch."""
    unit = batch_size // 2 if batch_size % _FINE == 0 else batch_size
    size = int(batch_size / relative_cost / unit + 0.5) * unit
    if most is not None:
        size = min(size, most // unit * unit)
    return max(size, batch_size)
