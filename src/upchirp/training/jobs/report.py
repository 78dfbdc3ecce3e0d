"""The report that a run leaves in its folder."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from upchirp.data import Source
from upchirp.errors import one_line
from upchirp.machine import hardware, versions
from upchirp.training.assets.examples import answers_of, examples_of
from upchirp.training.evaluation.predictions import Predictions
from upchirp.training.events import Noted, Working
from upchirp.training.folders.run_folder import REPORT, read_metrics

if TYPE_CHECKING:
    from upchirp.reports.class_tables import ClassScores
    from upchirp.training.run.loop import Run


def report_at_end(run: "Run", settings: Mapping[str, Any], train: Source, val: Source) -> None:
    """Write the report of a run that ended; what is trained and exported is not lost if that fails."""
    run.emit(Working(what="writing the report"))
    try:
        report_run(run, settings, train, val)
    except Exception as error:
        run.emit(Noted(message=f"no {REPORT} was written: {one_line(error)}"))


def report_run(run: "Run", settings: Mapping[str, Any], train: Source, val: Source) -> None:
    """Write a finished run's `report.html`."""
    # matplotlib takes most of a second, which only a run that ends needs to spend.
    from upchirp.reports.run_html import RunRecord, write_run_report

    trainer, plan, folder, evaluation = run.trainer, run.plan, run.setup.folder, run.evaluations.exported
    examples = examples_of(plan.curriculum, plan, train, trainer.augmentation, trainer.loading)
    predictions = None if evaluation is None else evaluation.predictions
    ranked = None if evaluation is None else evaluation.scores
    record = RunRecord(
        name=folder.name,
        settings=settings,
        plan=plan,
        log=read_metrics(folder),
        facts=_facts(settings, train, val, labelled=trainer.task.labelled),
        hardware=hardware(),
        versions=versions(),
        scores=scores_of(predictions, val.classes) if predictions is not None and len(predictions) else None,
        by_class=ranked.by_class(val.classes) if ranked is not None and val.classes else (),
        examples=examples,
        notes=run.totals.notes,
        figure=trainer.task.best,
        # Parts of a model cannot be asked by one rank alone.
        answers=() if run.state.parallel.in_step else answers_of(trainer, plan, train, run.state.model),
    )
    write_run_report(record, folder / REPORT)


def scores_of(predictions: Predictions, classes: Sequence[str]) -> "ClassScores":
    """Guesses counted by class."""
    # matplotlib comes with it.
    from upchirp.reports.class_tables import MOST_PIXELS, ClassScores

    count = max(len(classes), 1 + int(max(predictions.labels.max(), predictions.guesses.max())))
    right, images = predictions.by_class(count)
    return ClassScores(
        right=right,
        images=images,
        classes=tuple(classes),
        confusions=predictions.confusions(),
        matrix=predictions.matrix(count) if count <= MOST_PIXELS else None,
    )


def _facts(settings: Mapping[str, Any], train: Source, val: Source, *, labelled: bool) -> dict[str, str]:
    classes = {"classes": f"{len(train.classes):,}" if train.classes else "without names"}
    return {
        "data": settings["data"] or "given from Python",
        "training images": f"{len(train):,}",
        "validation images": f"{len(val):,}",
        # Without labels to learn nothing is to be said of them.
        **(classes if labelled else {}),
        "recipe": settings["recipe"],
    }
