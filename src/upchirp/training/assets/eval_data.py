"""The images that trained weights are tried on: what is asked for and what the run says, and labels by name."""

from dataclasses import replace
from pathlib import Path

from upchirp.data import (
    DataIdentity,
    Source,
    SubsetSource,
    are_numbers,
    fingerprint,
    match_classes,
    open_evaluation,
)
from upchirp.data.label_sets import label_sets_of
from upchirp.data.labels import unranked
from upchirp.data.sources import Note
from upchirp.data.sources.listing import Counted, ignore
from upchirp.data.sources.relabelled import renumbered
from upchirp.data.sources.subset import hold_out
from upchirp.errors import InputError
from upchirp.training.assets.data import SCANNING
from upchirp.training.assets.trained import TrainedWeights
from upchirp.training.checkpoints.weights import Weights
from upchirp.training.events import Report
from upchirp.training.recipes.eval_groups import EvalData
from upchirp.training.recipes.group import group_of
from upchirp.training.recipes.groups import Start


def beside_run(asked: EvalData, run: Start) -> tuple[Start, bool]:
    """The data that is asked for, else the run's, and whether it is the run's.

    Raises:
        InputError: there is neither.
    """
    data = asked.data or run.data
    if not data:
        raise InputError("no data: give a folder of images, or 'generated'")
    own, of_run = group_of(Start, run), bool(run.data) and _is_same_data(data, run.data)
    if not of_run:
        # The run's names of splits and further data are those of its own data.
        own = replace(own, train_split=None, val_split=None, label_column=None, more_data=())
    named = {name: getattr(asked, name) for name in ("val_share", "val_split", "label_column")}
    return replace(own, data=data, **{name: value for name, value in named.items() if value is not None}), of_run


def open_asked(
    asked: EvalData,
    run: Start,
    size: int,
    note: Note = lambda line: None,
    counted: Counted = ignore,
    *,
    trained_on: DataIdentity | None = None,
) -> Source:
    """Open it for an evaluation, generated images at a side in pixels; see `open_evaluation`.

    By the identity of what was trained on, where it is given, the run's own data are known in another place, too.
    """
    chosen, of_run = beside_run(asked, run)

    def held_out(whole: Source) -> float | None:
        # What the run was trained on is no test of it.
        if of_run:
            return run.val_share
        return _share_held_out(trained_on, whole, run) if run.data else None

    return open_evaluation(
        chosen.data,
        size,
        val_share=asked.val_share,
        held_out=held_out,
        train_split=chosen.train_split,
        val_split=chosen.val_split,
        label_column=chosen.label_column,
        note=note,
        counted=counted,
    )


def open_labelled(asked: EvalData, trained: TrainedWeights, size: int, note: Note, report: Report) -> Source:
    """Open it under the labels that the weights have for its classes, and note what does not fit them.

    Raises:
        InputError: as `open_asked`, or the weights lack a class of the data.
    """
    report(SCANNING)
    run, told = trained.config, trained.weights.description
    opened = open_asked(asked, run, size, note, counted=lambda images: report(SCANNING, images), trained_on=told.data)
    source, matched = _by_name(opened, trained.weights)
    seen = _seen_in_training(opened, asked, run, told.data)
    for line in (*seen, *matched, *unranked(source), *other_kind(source, trained.weights)):
        note(line)
    return source


def _by_name(source: Source, weights: Weights) -> tuple[Source, list[str]]:
    """The images under the labels that the weights have for their classes, and notes on them."""
    known, own = weights.description.classes, tuple(source.classes)
    if not known or not own:
        return source, []
    try:
        labels = match_classes(own, known)
    except InputError as error:
        if len(own) == len(known) and (are_numbers(own) or are_numbers(known)):
            numbered = "the data" if are_numbers(own) else "the weights"
            return source, [f"{numbered} have numbers for classes, which are taken in the order of the other's names"]
        raise InputError(f"{weights.path}: {error}: give data with the weights' classes") from None
    if labels == tuple(range(len(known))):
        return source, []
    notes = []
    if len(own) < len(known) and label_sets_of(source) is None:
        notes = [f"the data has {len(own)} of the weights' {len(known)} classes: a guess of another one is wrong"]
    if list(labels) != sorted(labels):
        notes.append("the data has its classes in another order than the weights: labels are matched by name")
    return renumbered(source, labels, known), notes


def other_kind(source: Source, weights: Weights) -> list[str]:
    """A note on weights that were trained for several labels an image, and images with one each; or the reverse."""
    several, told = label_sets_of(source) is not None, weights.description
    if told.multi_label and not several:
        return [f"{weights.path} tells several labels an image, and these have one each: the likeliest is the guess"]
    # Files of others do not say what they tell.
    if several and told.classes and not told.multi_label:
        return [
            f"{weights.path} tells one label an image, and these have several: its outputs rank them, and above 0 they "
            "do not mean more likely than not, as micro F1 takes them"
        ]
    return []


def _share_held_out(trained_on: DataIdentity | None, whole: Source, run: Start) -> float | None:
    """The share of these images that a training held out, by its fingerprint, if it was trained on the others."""
    if trained_on is None or trained_on.val is None or trained_on.val.images >= len(whole):
        return None
    # Weights by themselves do not say which share was asked for; by number and class it is near that of the images.
    near = trained_on.val.images / len(whole)
    for share in dict.fromkeys((run.val_share, round(near, 2), near)):
        try:
            held = hold_out(whole, share)[1]
        except InputError:
            continue
        if len(held) == trained_on.val.images and fingerprint(held) == trained_on.val:
            return share
    return None


def _seen_in_training(source: Source, asked: EvalData, run: Start, trained_on: DataIdentity) -> list[str]:
    """A note where images to evaluate on were trained on, or may have been, and nobody asked for those."""
    if trained_on.train is None or trained_on.val is None or (label_sets_of(source) is not None and run.more_data):
        return []
    if not isinstance(source, SubsetSource):
        share = _share_held_out(trained_on, source, run)
        if share is None:
            return []
        return [
            f"the weights were trained on all of these images but {trained_on.val.images:,}, so that of other images "
            f"the accuracy says too much: `val_share={share:g}` evaluates those alone"
        ]
    _, of_run = beside_run(asked, run)
    if not of_run or fingerprint(source) == trained_on.val:
        return []
    if asked.val_share not in (None, run.val_share):
        return [
            f"`val_share` was {run.val_share:g} in the training: some of these {len(source):,} images may have been "
            "trained on, and of other images the accuracy then says too much: leave out `val_share`"
        ]
    return [
        f"the data have changed since the training, which held out {trained_on.val.images:,} images: some of these "
        f"{len(source):,} may have been trained on, and of other images the accuracy then says too much: give `data` "
        "of images that are new"
    ]


def _is_same_data(one: str, other: str) -> bool:
    """Whether two names of data stand for the same files."""
    paths = [Path(name).expanduser() for name in (one, other)]
    return one == other or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))
