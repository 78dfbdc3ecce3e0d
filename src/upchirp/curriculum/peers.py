"""Curricula of others, and their baselines, to compare with under one rule."""

import math
from dataclasses import replace

from upchirp.curriculum.curriculum import Curriculum, Phase
from upchirp.curriculum.scaling import check_final_size, nearest_multiple

_SCALE, _DELAY, _TUNED, _STEP = 0.5, 0.5, 0.2, 4
"""Composer's defaults: first scale, share of the run at it, share at the full size at the end, step in pixels."""
_SMALL, _TEST = 160, 224


def composer_progressive(final_size: int = 224, *, multiple: int = 1) -> Curriculum:
    """MosaicML Composer's progressive resizing with its defaults, `mode="resize"`, after its documentation.

    Half of the size for half of the run, then linearly up in steps of 4 pixels, and the last fifth at the full size;
    progress counts samples. Finished batches are reduced to their nearest neighbours. Steps are larger where the model
    takes multiples of another number only.

    >>> curriculum = composer_progressive(224)
    >>> curriculum.bandwidths[:3], curriculum.at(0.65).bandwidth, curriculum.at(0.8).bandwidth
    ((112, 116, 120), 168, 224)
    >>> curriculum.at(0.1).operator
    'nearest'

    Raises:
        InputError: `final_size` or `multiple` below 1, or `final_size` not a multiple of `multiple`.
    """
    check_final_size(final_size, multiple)
    step = math.lcm(_STEP, multiple)
    phases: list[Phase] = []
    side = max(step, round(final_size * _SCALE / step) * step)
    while side < final_size:
        # The size is rounded to steps, so it changes half a step before it is reached.
        scale = (side + step / 2) / final_size
        end = _DELAY + (scale - _SCALE) / (1 - _SCALE) * (1 - _TUNED - _DELAY)
        if end >= 1 - _TUNED:
            break
        phases.append(Phase(end=end, bandwidth=side, operator="nearest"))
        side += step
    if side < final_size:
        phases.append(Phase(end=1 - _TUNED, bandwidth=side, operator="nearest"))
    phases.append(Phase(end=1.0, bandwidth=final_size))
    return Curriculum(name="composer_progressive", axis="samples", phases=tuple(phases), magnitude=(9.0, 9.0))


def train_small(final_size: int = 224, *, multiple: int = 1) -> Curriculum:
    """Train at 160 pixels, test at 224, with the full magnitude throughout; other sizes in proportion.

    >>> curriculum = train_small(224)
    >>> curriculum.at(0.99).bandwidth, curriculum.final_size
    (160, 224)

    Raises:
        InputError: as `composer_progressive`.
    """
    check_final_size(final_size, multiple)
    side = min(final_size, nearest_multiple(final_size * _SMALL / _TEST, multiple))
    made = Curriculum(
        name="train_small", axis="compute", phases=(Phase(end=1.0, bandwidth=side),), magnitude=(9.0, 9.0)
    )
    return made if side == final_size else replace(made, test_size=final_size)
