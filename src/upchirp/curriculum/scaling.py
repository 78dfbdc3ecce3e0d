"""Bandwidths in the sizes that a model takes, and a curriculum carried over to another final size."""

import math
from dataclasses import replace

from upchirp.curriculum.arguments import as_whole
from upchirp.curriculum.curriculum import Curriculum, Phase
from upchirp.errors import InputError


def check_final_size(final_size: int, multiple: int) -> None:
    """Raise unless the final size is a size that the model takes.

    Raises:
        InputError: `final_size` or `multiple` no whole number or below 1, or `final_size` not a multiple of `multiple`.
    """
    if as_whole("multiple", multiple) < 1 or as_whole("final size", final_size) < 1:
        raise InputError(f"final size {final_size}, multiple {multiple}: both must be 1 or more")
    if final_size % multiple:
        low = final_size // multiple * multiple
        sizes = f"{low} or {low + multiple}" if low else f"{multiple}"
        raise InputError(f"final size {final_size} is not a multiple of {multiple}, as the model needs: take {sizes}")


def nearest_multiple(side: float, multiple: int) -> int:
    """The nearest positive multiple; of two as near the lower one, whose compute is nearer.

    >>> nearest_multiple(45.7, 16), nearest_multiple(3, 16), nearest_multiple(272, 32)
    (48, 16, 256)
    """
    return max(multiple, math.ceil(side / multiple - 0.5) * multiple)


def scaled(curriculum: Curriculum, final_size: int, *, multiple: int = 1) -> Curriculum:
    """The curriculum with every bandwidth the same share of another final size, in sizes that the model takes.

    Neighbours that round to one bandwidth become one phase, unless they differ in something else. A radius stays: its
    periods per image mean the same at any size.

    >>> from upchirp.curriculum.presets import efficienttrain_plus_plus
    >>> scaled(efficienttrain_plus_plus(224), 64, multiple=16).bandwidths
    (32, 48, 64)

    Raises:
        InputError: a final size that is not a multiple of `multiple`.
    """
    check_final_size(final_size, multiple)
    ratio = final_size / curriculum.final_size
    phases: list[Phase] = []
    for phase in curriculum.phases:
        whole = phase.bandwidth == curriculum.final_size
        side = final_size if whole else min(final_size, nearest_multiple(phase.bandwidth * ratio, multiple))
        made = replace(phase, bandwidth=side)
        if phases and phase.magnitude is None and replace(phases[-1], end=made.end) == made:
            phases.pop()
        phases.append(made)
    return replace(curriculum, phases=tuple(phases), test_size=None if curriculum.test_size is None else final_size)
