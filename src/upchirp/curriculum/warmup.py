"""How long the learning rate rises at the start of a run: passes over the data, as a share of the run (Table 24)."""

from collections.abc import Sequence

from upchirp.curriculum.stage import Stage

WARMUP_PASSES = 20.0
"""Passes over the data at the first bandwidth (Table 24: 20 epochs, of baselines and of curricula alike)."""
LONGEST = 0.2
"""Longest warm-up as a share of the run, so that a short one is not all warm-up; the paper has no runs so short."""


def warmup_share(stages: Sequence[Stage], images: float) -> float:
    """The progress at which so many images have been seen, at most a fifth of the run.

    Args:
        stages: of the run, in order.
        images: that are seen while the learning rate rises.

    >>> from upchirp.curriculum import constant, efficienttrain_plus_plus, plan
    >>> [round(plan(curriculum, epochs=epochs).schedule.warmup, 4)
    ...  for curriculum, epochs in ((constant(), 300), (efficienttrain_plus_plus(), 200), (constant(), 30))]
    [0.0667, 0.0184, 0.2]
    """
    for stage in stages:
        first, last = stage.progress
        if images <= stage.samples:
            return min(LONGEST, first + (last - first) * images / stage.samples)
        images -= stage.samples
    return LONGEST
