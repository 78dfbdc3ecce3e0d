"""Evaluations of a run on its way: what they find, which weights are the best, and when no better are waited for."""

from collections.abc import Callable
from dataclasses import dataclass, field

from upchirp.curriculum import Operator
from upchirp.training.evaluation.evaluation import Evaluation
from upchirp.training.evaluation.of_state import StateEvaluation, evaluate_state
from upchirp.training.evaluation.predictions import write_answers
from upchirp.training.events import Evaluated, Event, Noted, Working
from upchirp.training.folders.run_folder import PREDICTIONS, SCORES
from upchirp.training.run.saving import Saving
from upchirp.training.run.setup import Setup


@dataclass(eq=False)
class Evaluations:
    """Evaluates a run's weights, and keeps the best. All ranks call its methods together."""

    setup: Setup
    saving: Saving
    emit: Callable[[Event], None]
    exported: Evaluation | None = field(default=None, init=False)
    """The latest evaluation of what is exported: the average of the weights if there is one, else the weights."""

    def __post_init__(self) -> None:
        self.state, self.totals = self.setup.state, self.setup.totals

    @property
    def give_up(self) -> bool:
        """Whether evaluations have not become better for as long as is waited for."""
        patience = self.setup.keeping.early_stop
        return patience is not None and self.totals.stale >= patience

    def evaluate(self) -> float:
        """Evaluate at the final size, and at the current bandwidth; returns the top-1 of what is exported.

        In the last stage the state is written if it is better than all before.
        """
        state, totals, plan = self.state, self.totals, self.setup.plan
        self.emit(Working(what="evaluating"))
        results = self._evaluated()
        progress = 1.0 if state.step == plan.total_steps else plan.step(state.step).progress
        for evaluated in results:
            self.emit(
                Evaluated(
                    step=state.step,
                    progress=progress,
                    bandwidth=evaluated.bandwidth,
                    weights=evaluated.weights,
                    result=evaluated.result,
                    train_seconds=totals.train_seconds,
                )
            )
        for line in self.setup.images.left_out():
            self.emit(Noted(message=line))
        self.exported = self._of_exported(results)
        top1 = self.exported.score
        in_last_stage = plan.stage_at(state.step - 1) == len(plan.stages) - 1
        if in_last_stage and state.step != totals.evaluated:
            totals.evaluated = state.step
            totals.stale += 1
        if in_last_stage and top1 > totals.best_top1:
            totals.best_top1, totals.stale = top1, 0
            with totals.spent.on("saving"):
                self.saving.best()
        return top1

    def take_best(self) -> float:
        """Go back to the best weights, for good; returns their top-1."""
        trained, totals = self.state.step, self.totals
        with totals.spent.on("saving"):
            self.saving.back_to_best()
        if self.state.step == trained:
            return totals.best_top1
        self.exported = self._of_exported(self._evaluated())
        stopped = f"no better evaluation in {totals.stale}: stopped after {trained} steps, and " if self.give_up else ""
        self.emit(Noted(message=f"{stopped}the weights of step {self.state.step} are exported, the best"))
        return totals.best_top1

    def write(self) -> None:
        """Keep what the exported weights answered for each image in the run folder; the first rank calls it."""
        folder = self.setup.folder
        if self.exported is not None and self.exported.predictions is not None:
            write_answers(folder / PREDICTIONS, self.exported.predictions)
        if self.exported is not None and self.exported.scores is not None:
            write_answers(folder / SCORES, self.exported.scores)

    def _evaluated(self) -> list[StateEvaluation]:
        with self.totals.spent.on("evaluating"):
            return evaluate_state(self.setup.trainer, self.state, self.setup.images, self._operator)

    @property
    def _operator(self) -> Operator | None:
        """What reduced the images of the last step."""
        return self.setup.plan.step(max(0, self.state.step - 1)).operator

    def _of_exported(self, results: list[StateEvaluation]) -> Evaluation:
        return next(each.result for each in results if (each.weights, each.bandwidth) == self.setup.exported)
