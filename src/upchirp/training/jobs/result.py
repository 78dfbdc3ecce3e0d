"""What a finished run achieved."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from upchirp.curriculum import Plan
from upchirp.training.events import Finished, Noted, Observer
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.run.run_folder import read_plan


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run achieved."""

    output: Path
    """The run folder."""
    plan: Plan
    """What was executed."""
    top1: float
    """Percent right at the final size: of the weights' average if the recipe keeps one, else of the weights."""
    best_top1: float
    """The best of the evaluations in the last stage."""
    figure: str
    """What these two measure: `top1`, or the best figure of another task."""
    train_seconds: float
    """Training time, without evaluations and checkpoints."""


def finished_before(folder: Path, end: Finished, observers: Sequence[Observer], ranks: Ranks) -> TrainResult:
    """The result of a run that was finished earlier, from its log; all ranks call it together."""
    for observer in observers:
        observer(Noted(message=f"{folder} was finished before"))
        observer(end)
    return TrainResult(
        output=folder,
        plan=ranks.from_first(lambda: read_plan(folder)),
        top1=end.top1,
        best_top1=end.best_top1,
        figure=end.figure,
        train_seconds=end.train_seconds,
    )
