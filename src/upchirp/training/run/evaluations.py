"""Evaluations of a run on its way: what they find, which weights are the best, and when no better are waited for."""

from collections.abc import Callable
from pathlib import Path

from upchirp.curriculum import Operator, Plan
from upchirp.training.engine.trainer import Trainer
from upchirp.training.evaluation.evaluation import Evaluation
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.evaluation.of_state import StateEvaluation, evaluate_state
from upchirp.training.evaluation.predictions import write_predictions, write_scores
from upchirp.training.events import Evaluated, Event, Noted, Working
from upchirp.training.parallel.state import State
from upchirp.training.run.run_folder import PREDICTIONS, SCORES
from upchirp.training.run.saving import Saving, Totals


class Evaluations:
    """Evaluates a run's weights, and keeps the best. All ranks call its methods together.

    Args:
        trainer: who trains, which knows what is measured.
        plan: what is executed.
        state: what is evaluated.
        totals: where the best figure is counted.
        images: to evaluate on, at the final size.
        patience: evaluations in the last stage without a better one that are waited for; None waits for all.
        saving: writes the best state.
        emit: is told what is found.
    """

    def __init__(
        self,
        trainer: Trainer,
        plan: Plan,
        state: State,
        totals: Totals,
        images: EvaluationSet,
        patience: int | None,
        saving: Saving,
        emit: Callable[[Event], None],
    ) -> None:
        self.exported: Evaluation | None = None
        """The latest evaluation of what is exported: the average of the weights if there is one, else the weights."""
        self._trainer = trainer
        self._plan = plan
        self._state = state
        self._totals = totals
        self._images = images
        self._patience = patience
        self._saving = saving
        self._emit = emit

    @property
    def give_up(self) -> bool:
        """Whether evaluations have not become better for as long as is waited for."""
        return self._patience is not None and self._totals.stale >= self._patience

    def evaluate(self) -> float:
        """Evaluate at the final size, and at the current bandwidth; returns the top-1 of what is exported.

        In the last stage the state is written if it is better than all before.

        Raises:
            UnreadableImages: more than 1 % of the images cannot be read.
        """
        state, totals, plan = self._state, self._totals, self._plan
        self._emit(Working(what="evaluating"))
        results = self._evaluated()
        progress = 1.0 if state.step == plan.total_steps else plan.step(state.step).progress
        for evaluated in results:
            self._emit(
                Evaluated(
                    step=state.step,
                    progress=progress,
                    bandwidth=evaluated.bandwidth,
                    weights=evaluated.weights,
                    result=evaluated.result,
                    train_seconds=totals.train_seconds,
                )
            )
        for image in self._images.corrupt:
            self._emit(Noted(message=f"cannot read the validation image {image.name} ({image.reason}): left out"))
        self._images.corrupt = []
        self.exported = self._of_exported(results)
        top1 = self.exported.score
        in_last_stage = plan.stage_at(state.step - 1) == len(plan.stages) - 1
        if in_last_stage and state.step != totals.evaluated:
            totals.evaluated = state.step
            totals.stale += 1
        if in_last_stage and top1 > totals.best_top1:
            totals.best_top1, totals.stale = top1, 0
            with totals.spent.on("saving"):
                self._saving.best()
        return top1

    def take_best(self) -> float:
        """Go back to the best weights, for good; returns their top-1."""
        trained, totals = self._state.step, self._totals
        with totals.spent.on("saving"):
            self._saving.back_to_best()
        if self._state.step == trained:
            return totals.best_top1
        self.exported = self._of_exported(self._evaluated())
        stopped = f"no better evaluation in {totals.stale}: stopped after {trained} steps, and " if self.give_up else ""
        self._emit(Noted(message=f"{stopped}the weights of step {self._state.step} are exported, the best"))
        return totals.best_top1

    def write(self, folder: Path) -> None:
        """Keep what the exported weights answered for each image in the run folder; the first rank calls it."""
        if self.exported is not None and self.exported.predictions is not None:
            write_predictions(folder / PREDICTIONS, self.exported.predictions)
        if self.exported is not None and self.exported.scores is not None:
            write_scores(folder / SCORES, self.exported.scores)

    def _evaluated(self) -> list[StateEvaluation]:
        with self._totals.spent.on("evaluating"):
            return evaluate_state(self._trainer, self._state, self._images, self._operator)

    @property
    def _operator(self) -> Operator | None:
        """What reduced the images of the last step."""
        return self._plan.step(max(0, self._state.step - 1)).operator

    def _of_exported(self, results: list[StateEvaluation]) -> Evaluation:
        return results[0 if self._state.ema is None else 1].result
