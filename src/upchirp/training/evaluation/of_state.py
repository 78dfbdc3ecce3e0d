"""Evaluation of a training state: weights and average at the final size, weights at the current bandwidth."""

from contextlib import ExitStack
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import nn

from upchirp.curriculum import Plan
from upchirp.data import Augmentation
from upchirp.training.engine.state import State
from upchirp.training.evaluation.images import Evaluation, EvaluationSet, View, at_size, evaluate
from upchirp.training.parallel.sharded import fitted_to


class StateEvaluation(NamedTuple):
    """How well one of the state's sets of weights does."""

    weights: Literal["model", "ema"]
    """Which weights these are."""
    bandwidth: int
    """Input side, pixels."""
    result: Evaluation
    """How well they do."""


def evaluation_follows(plan: Plan, steps: int, evaluations: int) -> bool:
    """Whether a run of so many evaluations, spread evenly over progress, has one after so many steps.

    The last is at the end.
    """
    if steps in (0, plan.total_steps):
        return steps > 0
    before, after = plan.step(steps - 1).progress, plan.step(steps).progress
    return int(after * evaluations) > int(before * evaluations)


def evaluate_state(
    state: State,
    data: EvaluationSet,
    *,
    augmentation: Augmentation,
    device: torch.device,
    autocast: torch.dtype | None,
) -> list[StateEvaluation]:
    """Evaluate the weights, then their average if there is one, at the set's size; then the weights at their bandwidth.

    Raises:
        UnreadableImages: more than 1 % of the images cannot be read.
    """
    of_state: list[tuple[Literal["model", "ema"], nn.Module, int]] = [("model", state.model, data.size)]
    if state.ema is not None:
        of_state.append(("ema", state.ema.module, data.size))
    if state.bandwidth < data.size:
        of_state.append(("model", state.model, state.bandwidth))

    def evaluated(views: list[View]) -> list[Evaluation]:
        return evaluate(
            views,
            data,
            mean=augmentation.mean,
            std=augmentation.std,
            device=device,
            autocast=autocast,
            in_step=state.sharded,
        )

    if state.sharded:
        # In place, those of one size together: there is no room for copies.
        results = []
        for size, of_size in groupby(of_state, key=lambda each: each[2]):
            views = [View(*each) for each in of_size]
            with ExitStack() as fitted:
                for view in views:
                    fitted.enter_context(fitted_to(view.model, state.bandwidth, size))
                results += evaluated(views)
    else:
        results = evaluated([View(name, at_size(model, state.bandwidth, side), side) for name, model, side in of_state])
    return [StateEvaluation(name, side, result) for (name, _, side), result in zip(of_state, results, strict=True)]
