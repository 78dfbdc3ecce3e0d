"""Evaluation of a training state: weights and average at the final size, weights at the current bandwidth."""

from itertools import islice
from typing import Literal, NamedTuple

from torch import nn

from upchirp.curriculum import Operator
from upchirp.data import Source
from upchirp.training.engine.trainer import Trainer
from upchirp.training.evaluation.evaluation import Evaluation, View, evaluate
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.parallel.state import State

_MOST_AT_ONCE = 256


class StateEvaluation(NamedTuple):
    """How well one of the state's sets of weights does."""

    weights: Literal["model", "ema"]
    bandwidth: int
    """Input side, pixels."""
    result: Evaluation


def images_of(trainer: Trainer, source: Source, size: int, batch_size: int) -> EvaluationSet:
    """A source's images at a side for evaluations of a trainer's states, loaded and shared out as it does."""
    return EvaluationSet(
        source,
        size,
        trainer.augmentation,
        workers=trainer.loading.processes,
        batch_size=min(_MOST_AT_ONCE, batch_size),
        pin_memory=trainer.device.type == "cuda",
        timeout=trainer.loading.loader_timeout,
        ranks=trainer.parallel.ranks,
    )


def evaluate_state(
    trainer: Trainer, state: State, data: EvaluationSet, operator: Operator | None = None
) -> list[StateEvaluation]:
    """Evaluate the weights, then their average if there is one, at the set's size; then the weights at their bandwidth.

    Images are reduced to the bandwidth by the operator, as in training; by default by the trainer's own.
    """
    state.average_statistics()
    of_state: list[tuple[Literal["model", "ema"], nn.Module, int]] = [("model", state.model, data.size)]
    if state.ema is not None:
        of_state.append(("ema", state.ema.module, data.size))
    if state.bandwidth < data.size:
        of_state.append(("model", state.model, state.bandwidth))

    results: list[Evaluation] = []
    rest = iter(of_state)
    for models in state.parallel.at_sizes([(model, side) for _, model, side in of_state], state.bandwidth):
        results += evaluate(
            [
                View(name, model, side, operator or trainer.loading.low_frequency)
                for model, (name, _, side) in zip(models, islice(rest, len(models)), strict=True)
            ],
            data,
            device=trainer.device,
            autocast=trainer.autocast,
            in_step=state.parallel.in_step,
            task=trainer.task,
        )
    return [StateEvaluation(name, side, result) for (name, _, side), result in zip(of_state, results, strict=True)]
