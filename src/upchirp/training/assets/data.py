"""Images that settings name, opened for training and validation, and what to tell of them."""

from collections.abc import Sequence
from statistics import median_low
from typing import Any

from upchirp.data import (
    DECODE_ERRORS,
    ArchiveSource,
    FolderSource,
    HuggingFaceSource,
    JoinedSource,
    ShardSource,
    Source,
    SubsetSource,
    TableSource,
    UnlabelledSource,
    as_source,
    open_data,
    open_more,
    open_unlabelled,
)
from upchirp.data.labels import unranked, validation_for
from upchirp.data.sources import Note, warn
from upchirp.data.sources.overlap import overlap
from upchirp.data.sources.relabelled import with_common_sets
from upchirp.errors import InputError
from upchirp.training.engine.task import Task
from upchirp.training.events import Report, unreported
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.groups import Start

SCANNING = "scanning the data"
_LOOKED_AT = 15
"""Training images whose sizes are looked at."""
_ENLARGED = 1.5
"""Times their own side to which images are trained on without a word."""
_SIDES = 32
"""Pixels that sides are multiples of in advice: most models take them."""


def open_named_data(
    start: Start, note: Note = warn, report: Report = unreported, *, labelled: bool = True
) -> tuple[Source, Source]:
    """The training and the validation images that the settings name; see `open_unlabelled` for those without labels.

    Raises:
        InputError: none are named, or they cannot be opened.
    """
    if not start.data:
        raise InputError("no data: give a folder of images, or 'generated'")
    if start.more_data and not labelled:
        raise InputError("`more_data` is for labelled images: put those without into one folder")

    def counted(images: int | None) -> None:
        report(SCANNING, images)

    counted(None)
    columns = {"label_column": start.label_column} if labelled else {}
    train, val = (open_data if labelled else open_unlabelled)(
        start.data,
        start.final_size,
        val_share=start.val_share,
        train_split=start.train_split,
        val_split=start.val_split,
        note=note,
        counted=counted,
        **columns,
    )
    if start.more_data:
        further = [open_more(more, train, note=note, counted=counted, **columns) for more in start.more_data]
        for line in _check_apart(val, further, start.more_data):
            note(line)
        train = JoinedSource([train, *further])
    return train, val


def _check_apart(val: Source, further: Sequence[Source], names: Sequence[str]) -> list[str]:
    """What to tell of validation images that further data have copies of.

    Raises:
        InputError: the very files are trained on, too.
    """
    notes = []
    for source, name in zip(further, names, strict=True):
        same, copies = overlap(val, source)
        if same:
            raise InputError(
                f"{len(same):,} of the {len(val):,} validation images are training images of `more_data` {name}, too "
                f"(such as {same[0]}), so the accuracy would say nothing of other images: name data without them"
            )
        if copies:
            notes.append(
                f"{len(copies):,} or more of the {len(val):,} validation images have a copy among the training images "
                f"of {name} (such as {copies[0]}): the accuracy on them says nothing of other images"
            )
    return notes


def open_sources(
    start: Start, data: tuple[Any, Any] | None, task: Task, notes: list[str], report: Report
) -> tuple[Source, Source]:
    """Training and validation images, with the labels that the task asks for."""
    if data is not None:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise InputError(f"`data` is a {type(data).__name__}: give a pair, training and validation images")
        report(SCANNING)
    else:
        data = open_named_data(start, notes.append, report, labelled=task.labelled)
    train_source, val_source = map(as_source, data)
    if not len(val_source):
        raise InputError("there are no validation images: give some")
    if not task.labelled:
        return without_labels(train_source), without_labels(val_source)
    val_source, told = validation_for(train_source, val_source)
    notes += told
    train_source, val_source = with_common_sets([train_source, val_source])
    notes += unranked(val_source)
    return train_source, val_source


def without_labels(source: Source) -> Source:
    """The same images, of which all labels are 0."""
    return source if isinstance(source, UnlabelledSource) else UnlabelledSource(source)


def enlarged_note(config: TrainConfig, source: Source) -> list[str]:
    """What to tell of images that are much smaller than the final size, if nobody asked for that size."""
    if config.asks_for("final_size") or config.weights is not None or config.pretrained:
        return []
    sides = []
    count = min(_LOOKED_AT, len(source))
    for place in range(count):
        try:
            sides.append(min(source.load(place * len(source) // count)[0].size))
        except DECODE_ERRORS:
            continue
    if not sides or config.final_size <= _ENLARGED * median_low(sides):
        return []
    smaller = -(-median_low(sides) // _SIDES) * _SIDES
    if smaller >= config.final_size:
        return []
    less = (config.final_size / smaller) ** 2
    return [
        f"final size {config.final_size}: larger than the images, whose shorter side is {median_low(sides)} px (the "
        f"median); `final_size={smaller}` computes about {less:.2g} times less"
    ]


def packing_helps(source: Source, final_size: int) -> bool:
    """Whether `upchirp pack` would save reading: files with more pixels than are trained on, not packed yet."""
    while isinstance(source, SubsetSource | UnlabelledSource):
        source = source.whole
    if not isinstance(source, FolderSource | ArchiveSource | TableSource | HuggingFaceSource | ShardSource):
        return False
    if isinstance(source, ShardSource) and source.sizes:
        return False
    try:
        return min(source.load(0)[0].size) > final_size
    except DECODE_ERRORS:
        return False
