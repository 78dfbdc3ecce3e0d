"""How often a run is evaluated, and when: where nobody says it as often as usual, if that takes little time."""

import itertools
import math

from upchirp.curriculum import Plan
from upchirp.training.recipes.run_groups import Keeping

USUAL = 10
"""Evaluations of a run that is long beside them."""
_SHARE = 0.2
"""Of the training's time, what evaluations may take that nobody asked for."""
_FORWARD = 1 / 3
"""What a forward pass costs of a training step."""


def choose_evaluations(keeping: Keeping, plan: Plan, images: int, *, average: bool) -> tuple[int, str | None]:
    """The number of a run's evaluations, and what to tell of it where it is not the usual one.

    Args:
        keeping: which says the number, or leaves it open.
        plan: what is trained.
        images: validation images.
        average: whether the average of the weights is evaluated, too.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> long = plan(efficienttrain_plus_plus(224), epochs=100, dataset_size=6500, batch_size=64)
    >>> choose_evaluations(Keeping(), long, 1500, average=False)
    (10, None)
    >>> short = plan(efficienttrain_plus_plus(224), epochs=1, dataset_size=6500, batch_size=64)
    >>> choose_evaluations(Keeping(), short, 1500, average=False)
    (2, "evaluations 2: of 1,500 images, about 19 % of the training's time (10 would take 95 %)")
    >>> choose_evaluations(Keeping(early_stop=3), short, 1500, average=False)
    (11, 'evaluations 11: so many that the last stage has the 5 that `early_stop` asks for')
    """
    if keeping.evaluations is not None:
        return keeping.evaluations, None
    if keeping.early_stop is not None:
        number = _for_early_stop(plan, keeping.early_stop)
        least = keeping.early_stop + 2
        return number, f"evaluations {number}: so many that the last stage has the {least} that `early_stop` asks for"
    each = _cost(plan, images, average=average) / (plan.equivalent_epochs * plan.dataset_size)
    number = max(1, min(USUAL, math.floor(_SHARE / each)))
    if number == USUAL:
        return USUAL, None
    takes = f"about {100 * number * each:.0f} % of the training's time ({USUAL} would take {100 * USUAL * each:.0f} %)"
    return number, f"evaluations {number}: of {images:,} images, {takes}"


def evaluation_follows(plan: Plan, steps: int, evaluations: int) -> bool:
    """Whether a run of so many evaluations, spread evenly over progress, has one after so many steps.

    The last is at the end.
    """
    if steps in (0, plan.total_steps):
        return steps > 0
    before, after = plan.step(steps - 1).progress, plan.step(steps).progress
    return int(after * evaluations) > int(before * evaluations)


def stop_note(plan: Plan, keeping: Keeping) -> str | None:
    """What to tell of a run that is to stop early and cannot, for want of evaluations in its last stage; else None.

    The first of these is always the best until then, and after the last one there is nothing left to stop.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> run = plan(efficienttrain_plus_plus(96), epochs=10, dataset_size=6500, batch_size=64)
    >>> print(stop_note(run, Keeping(early_stop=3, evaluations=10)))
    the last stage has 4 evaluations, too few to stop after 3 without a better one: give 11 `evaluations` or more
    >>> stop_note(run, Keeping(early_stop=3, evaluations=11)) is None
    True
    """
    if keeping.early_stop is None or keeping.evaluations is None:
        return None
    there, least = _in_last_stage(plan, keeping.evaluations), keeping.early_stop + 2
    if there >= least:
        return None
    enough = _for_early_stop(plan, keeping.early_stop)
    return (
        f"the last stage has {there} evaluation{'' if there == 1 else 's'}, too few to stop after {keeping.early_stop} "
        f"without a better one: give {enough} `evaluations` or more"
    )


def _cost(plan: Plan, images: int, *, average: bool) -> float:
    """What an evaluation costs on average, in training images at the final size."""
    at_bandwidth = sum(
        (stage.progress[1] - stage.progress[0]) * stage.cost_per_sample
        for stage in plan.stages
        if stage.bandwidth < plan.final_size
    )
    return _FORWARD * images * (1 + average + at_bandwidth)


def _in_last_stage(plan: Plan, evaluations: int) -> int:
    return evaluations - int(plan.stages[-1].progress[0] * evaluations)


def _for_early_stop(plan: Plan, patience: int) -> int:
    """The least number of evaluations, not less than usual, with which a run can stop early."""
    return next(number for number in itertools.count(USUAL) if _in_last_stage(plan, number) >= patience + 2)
