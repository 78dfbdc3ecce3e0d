"""The report of a run: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from upchirp.curriculum import Plan
from upchirp.curriculum.table import count_text
from upchirp.files import write_text
from upchirp.reports.class_tables import ClassScores, class_tables
from upchirp.reports.examples import ExampleRow, Examples
from upchirp.reports.loaded import loaded_by_stage
from upchirp.reports.page import answer_strips, picture, render, strip_rows
from upchirp.reports.precision_tables import precision_rows
from upchirp.reports.run_figures import curves, stage_seconds, time_of_stages
from upchirp.reports.words import SPENT, duration_text, figure_name, hardware_text, speed_text, spent_name


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a report of a run is made of."""

    name: str
    """Of the run."""
    settings: Mapping[str, Any]
    """All settings by their flag names."""
    plan: Plan
    """What was executed."""
    log: Sequence[Mapping[str, Any]]
    """The lines of its `metrics.jsonl`."""
    facts: Mapping[str, str]
    """What the data is, by what is told."""
    hardware: Mapping[str, Any]
    """See `upchirp.machine`."""
    versions: Mapping[str, str]
    """Of what it ran with."""
    scores: ClassScores | None = None
    """What the exported weights guess of the validation images, class by class."""
    by_class: Sequence[Mapping[str, Any]] = ()
    """Where images have several labels, each class with its images and its average precision."""
    examples: Examples | None = None
    """What the model saw."""
    notes: Sequence[str] = field(default=())
    """What the run told on its way."""
    figure: str = "top1"
    """The figure that tells how good its weights are."""
    answers: Sequence[tuple[str, ExampleRow]] = ()
    """What the task shows of the trained model, stage by stage: pictures, and what they are of."""


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A stage as texts: what was planned, and what happened."""

    progress: str
    bandwidth: int
    magnitude: str
    """Empty where there is none."""
    steps: str
    images: str
    batch_size: str
    compute: str
    time: str
    share: str
    speed: str
    prepared: str
    megabytes: str
    waiting: str


def write_run_report(record: RunRecord, path: Path) -> None:
    """Write a run as one HTML file with its figures inside; it loads nothing from anywhere.

    Args:
        record: what is told.
        path: the file to write; its folder must exist.

    Raises:
        OSError: the file cannot be written.
    """
    ends = [line for line in record.log if line["kind"] == "end"]
    evaluations = [line for line in record.log if line["kind"] == "evaluation"]
    page = render(
        "run.html.j2",
        record=record,
        plan=record.plan,
        end=ends[-1] if ends else None,
        total_time=duration_text(ends[-1]["train_seconds"]) if ends else "",
        images=count_text(record.plan.total_samples),
        curves=picture(partial(curves, figure=record.figure), record.log, record.plan) if evaluations else None,
        time=picture(time_of_stages, record.log, record.plan),
        stages=_stages(record),
        spent=_spent(ends[-1].get("spent", {})) if ends else [],
        strips=strip_rows(record.examples, record.plan.final_size) if record.examples else [],
        headline=f"{ends[-1]['top1']:.2f} % {figure_name(record.figure)}" if ends else "",
        answers=answer_strips(record.answers, record.plan.final_size),
        precisions=precision_rows(record.by_class),
        tables=class_tables(record.scores) if record.scores else None,
        settings={name: _setting(value) for name, value in record.settings.items()},
        hardware=hardware_text(record.hardware),
    )
    write_text(path, page)


def _stages(record: RunRecord) -> list[_Stage]:
    seconds = stage_seconds(record.log, record.plan)
    whole, cost = sum(seconds) or 1.0, sum(stage.cost for stage in record.plan.stages)
    loaded = loaded_by_stage(record.log, len(record.plan.stages))
    stages = []
    for place, (stage, spent) in enumerate(zip(record.plan.stages, seconds, strict=True)):
        start, end = stage.progress
        own = [line for line in record.log if line["kind"] == "train" and line["stage"] == place]
        waits = [line["wait_share"] for line in own]
        stages.append(
            _Stage(
                progress=f"{100 * start:.0f} to {100 * end:.0f}",
                bandwidth=stage.bandwidth,
                magnitude="" if stage.magnitude is None else "{:.1f} to {:.1f}".format(*stage.magnitude),
                steps=f"{stage.steps:,}",
                images=count_text(stage.samples),
                batch_size=f"{stage.batch_size:,}",
                compute=f"{100 * stage.cost / cost:.0f}",
                time=duration_text(spent) if own else "–",
                share=f"{100 * spent / whole:.0f}" if own else "–",
                speed=speed_text(stage.samples / spent) if spent else "–",
                prepared=speed_text(delivered.prepared_per_second) if (delivered := loaded[place]) else "–",
                megabytes=f"{delivered.megabytes_per_second:,.1f}" if delivered else "–",
                waiting=f"{100 * sum(waits) / len(waits):.0f}" if waits else "–",
            )
        )
    return stages


def _spent(spent: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """What the time went to, how long, and its share of all."""
    whole = sum(spent.values()) or 1.0
    return [
        (spent_name(name), duration_text(spent[name]), f"{100 * spent[name] / whole:.0f}")
        for name in SPENT
        if name in spent
    ]


def _setting(value: Any) -> str:
    return "" if value is None else str(value)
