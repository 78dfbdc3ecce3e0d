"""The report of a run: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upchirp.curriculum import Plan
from upchirp.curriculum.table import count_text
from upchirp.files import write_text
from upchirp.reports.examples import ExampleRow, Examples
from upchirp.reports.loaded import loaded_by_stage
from upchirp.reports.page import answer_strips, picture, png_source, render, strip_rows
from upchirp.reports.run_figures import curves, stage_seconds, time_of_stages
from upchirp.reports.words import SPENT, duration_text, figure_name, hardware_text, spent_name

MOST_CELLS = 24
"""Classes up to which the matrix is a table that can be read."""
MOST_PIXELS = 1000
"""Classes up to which it is a picture; beyond, only pairs are told."""
_WORST, _PAIRS = 12, 15


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
    classes: Sequence[str] = ()
    """Names of the classes, label 0 first."""
    right: NDArray[np.int64] | None = None
    """Validation images of each class that the exported weights guess right, (classes,)."""
    images: NDArray[np.int64] | None = None
    """Validation images of each class, (classes,)."""
    confusions: Sequence[tuple[int, int, int]] = ()
    """(label, guess, images), the most frequent first."""
    matrix: NDArray[np.int64] | None = None
    """Images of each class (row) that were taken for each (column), (classes, classes)."""
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


@dataclass(frozen=True, kw_only=True)
class _Class:
    """A class as texts."""

    name: str
    accuracy: str
    images: str


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One cell of the matrix."""

    share: str
    text: str


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two classes that were confused."""

    label: str
    guess: str
    images: str
    share: str


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
        scored=record.images is not None,
        worst=_worst(record),
        classes=_all_classes(record),
        pairs=_pairs(record),
        cells=_cells(record),
        labels=[_name(record, label) for label in range(_count(record))],
        map=_map(record),
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
        (start, end), (low, high) = stage.progress, stage.magnitude
        own = [line for line in record.log if line["kind"] == "train" and line["stage"] == place]
        waits = [line["wait_share"] for line in own]
        stages.append(
            _Stage(
                progress=f"{100 * start:.0f} to {100 * end:.0f}",
                bandwidth=stage.bandwidth,
                magnitude=f"{low:.1f} to {high:.1f}",
                steps=f"{stage.steps:,}",
                images=count_text(stage.samples),
                batch_size=f"{stage.batch_size:,}",
                compute=f"{100 * stage.cost / cost:.0f}",
                time=duration_text(spent) if own else "–",
                share=f"{100 * spent / whole:.0f}" if own else "–",
                speed=f"{stage.samples / spent:,.0f}" if spent else "–",
                prepared=f"{delivered.prepared_per_second:,.0f}" if (delivered := loaded[place]) else "–",
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


def _count(record: RunRecord) -> int:
    return 0 if record.images is None else len(record.images)


def _name(record: RunRecord, label: int) -> str:
    return record.classes[label] if label < len(record.classes) else f"class {label}"


def _class(record: RunRecord, label: int) -> _Class:
    assert record.right is not None and record.images is not None
    right, images = int(record.right[label]), int(record.images[label])
    return _Class(name=_name(record, label), accuracy=f"{100 * right / images:.1f}", images=f"{right} of {images}")


def _by_accuracy(record: RunRecord) -> list[int]:
    """Classes that have validation images, the worst first."""
    if record.right is None or record.images is None:
        return []
    right, images = record.right.tolist(), record.images.tolist()
    return sorted((k for k in range(len(images)) if images[k]), key=lambda k: (right[k] / images[k], k))


def _worst(record: RunRecord) -> list[_Class]:
    return [_class(record, label) for label in _by_accuracy(record)[:_WORST]]


def _all_classes(record: RunRecord) -> list[_Class]:
    """Every class, if the worst ones are not all of them and a page can hold them."""
    ordered = _by_accuracy(record)
    return [_class(record, label) for label in ordered] if _WORST < len(ordered) <= MOST_PIXELS else []


def _pairs(record: RunRecord) -> list[_Pair]:
    if record.images is None:
        return []
    return [
        _Pair(
            label=_name(record, label),
            guess=_name(record, guess),
            images=f"{count} of {int(record.images[label])}",
            share=f"{100 * count / int(record.images[label]):.0f}",
        )
        for label, guess, count in record.confusions[:_PAIRS]
    ]


def _shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row as shares of its class."""
    shares: NDArray[np.float64] = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return shares


def _cells(record: RunRecord) -> list[list[_Cell]]:
    """The matrix as a table, if it is small."""
    if record.matrix is None or len(record.matrix) > MOST_CELLS:
        return []
    counts = record.matrix.tolist()
    return [
        [_Cell(share=f"{share:.2f}", text=str(count) if count else "") for share, count in zip(row, own, strict=True)]
        for row, own in zip(_shares(record.matrix).tolist(), counts, strict=True)
    ]


def _map(record: RunRecord) -> str | None:
    """The matrix as a picture, a pixel for each pair, if it is too large for a table."""
    if record.matrix is None or len(record.matrix) <= MOST_CELLS:
        return None
    # See-through where nothing is, so that it suits dark pages too; the root makes rare confusions visible.
    pixels = np.zeros((*record.matrix.shape, 4), np.uint8)
    pixels[..., :3] = (38, 140, 204)
    pixels[..., 3] = np.rint(255 * np.sqrt(_shares(record.matrix)))
    return png_source(pixels)


def _setting(value: Any) -> str:
    return "" if value is None else str(value)
