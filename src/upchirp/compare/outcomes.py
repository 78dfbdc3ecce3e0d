"""What runs of an experiment left behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upchirp.curriculum import Plan
from upchirp.training import LabelScores, TrainResult, read_metrics
from upchirp.training.evaluation.predictions import Predictions, read_answers
from upchirp.training.folders.run_folder import PREDICTIONS, SCORES


@dataclass(frozen=True)
class Entry:
    """One variant at one budget."""

    variant: str
    """Its name."""
    budget: float
    """Share of the whole budget."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.variant}-{self.budget:g}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What one run of one seed left behind."""

    folder: Path
    """The run folder."""
    plan: Plan
    """What was executed."""
    top1: float
    """Percent right at the final size."""
    train_seconds: float
    """Training time."""
    log: Sequence[Mapping[str, Any]]
    """The lines of its log."""
    predictions: Predictions | None
    """What it guessed for each validation image, unless it was trained by a version that did not keep it."""
    figure: str = "top1"
    """What `top1` is: `mAP` where images have several labels."""
    scores: LabelScores | None = None
    """Where images have several labels, how it ranks the validation images."""
    compute: float | None = None
    """Multiply-adds of its forward passes; by default in images at the final size."""
    before: "Outcome | None" = None
    """The run whose weights it started from, which it cost too."""
    computes: str = ""
    """How it computes and loads: where that differs, images per second of the same work may."""

    def lines(self, kind: str) -> list[Mapping[str, Any]]:
        """The log's lines of one kind."""
        return [record for record in self.log if record["kind"] == kind]

    @property
    def all_seconds(self) -> float:
        """Training time with that of what it started from."""
        return self.train_seconds + (self.before.all_seconds if self.before else 0.0)

    @property
    def all_compute(self) -> float:
        """Compute with that of what it started from."""
        own = self.plan.equivalent_epochs * self.plan.dataset_size if self.compute is None else self.compute
        return own + (self.before.all_compute if self.before else 0.0)


def outcome_of(
    result: TrainResult, *, compute: float | None = None, computes: str = "", before: Outcome | None = None
) -> Outcome:
    """Read what a run left in its folder.

    Raises:
        InputError: a damaged file.
    """
    return Outcome(
        folder=result.output,
        plan=result.plan,
        top1=result.top1,
        train_seconds=result.train_seconds,
        log=read_metrics(result.output),
        predictions=read_answers(Predictions, result.output / PREDICTIONS),
        figure=result.figure,
        scores=read_answers(LabelScores, result.output / SCORES),
        compute=compute,
        computes=computes,
        before=before,
    )
