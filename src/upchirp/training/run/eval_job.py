"""Evaluation of trained weights, from files to figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from upchirp.data import Interpolation, Source, are_numbers, match_classes, open_evaluation
from upchirp.data.label_sets import label_sets_of
from upchirp.data.labels import unranked
from upchirp.data.settings import DEFAULT_TIMEOUT, loader_processes
from upchirp.data.sources.relabelled import renumbered
from upchirp.data.worker_deaths import loader_failures
from upchirp.errors import InputError
from upchirp.files import check_folder_of
from upchirp.models import at_size, check_sizes, create_model
from upchirp.spectral import high_pass_filter, low_pass_filter
from upchirp.training.checkpoints import checkpoint
from upchirp.training.checkpoints.loading import load_weights
from upchirp.training.checkpoints.weights import Weights, Which
from upchirp.training.engine.multi_label import MultiLabel
from upchirp.training.evaluation.evaluation import View, evaluate
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.evaluation.sized import SizedEvaluation
from upchirp.training.events import Observer, noting, reporting
from upchirp.training.parallel.device import choose_device
from upchirp.training.parallel.ranks import open_ranks
from upchirp.training.recipes.checks import at_least, check_model_kwargs
from upchirp.training.recipes.optimizer import fast_autocast_dtype
from upchirp.training.run.eval_report import report_evaluation
from upchirp.training.run.run_folder import CHECKPOINTS, REPORT, holds_run
from upchirp.training.run.trained_weights import is_same_data, read_trained

Filter = Callable[[torch.Tensor], torch.Tensor]
"""From normalised images, (N, 3, S, S), to filtered ones."""


def evaluate_weights(
    *,
    run: Path | None = None,
    model: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    weights: Path | None = None,
    which: Which | None = None,
    checkpoints: bool = False,
    data: str | None = None,
    val_share: float | None = None,
    val_split: str | None = None,
    label_column: str | None = None,
    sizes: Sequence[int] = (),
    low_pass: Sequence[float] = (),
    high_pass: Sequence[float] = (),
    crop_pct: float | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    interpolation: Interpolation | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    loader_timeout: float = DEFAULT_TIMEOUT,
    device: str | None = None,
    report_file: Path | None = None,
    observers: Sequence[Observer] = (),
) -> list[SizedEvaluation]:
    """Evaluate a run's weights, or a weights file, on the validation images, at one input side or several.

    Where weights and data both name their classes, labels are matched by name: the data may have the weights' classes
    in another order, or some of them only.

    What depends on the side (positions, windows) is resized from the one that the weights were trained at. FixRes
    (compared with in Table 11) rests on the finding that a somewhat larger side than in training does better.

    Args:
        run: run folder; gives model, data, weights and side where they are not given.
        model: timm's name; by default what the weights file says.
        model_kwargs: arguments for the model's constructor.
        weights: see `read_weights`.
        which: the average of the weights, or the raw ones; by default the average where there is one.
        checkpoints: evaluate every checkpoint that the run kept instead, the oldest first (Figure 4, Table 1).
        data: see `open_evaluation`.
        val_share: of one folder of classes evaluate only the share that training holds out; by default that is done
            for the data of the run, and all images of other folders are evaluated.
        val_split: name of the validation images' folder, split, or value in a table's column of splits.
        label_column: the column of labels of a table or a Hugging Face data set, where its name does not tell.
        sizes: input sides, pixels; by default the run's final size, else what the weights say, else 224.
        low_pass: evaluate images without the frequencies beyond each of these radii, periods per image (Figure 4).
        high_pass: evaluate images without those within each of these radii (Table 1).
        crop_pct: share of the resized image that the centre crop keeps; by default what the weights say for their
            own input side, and the paper's rule for others.
        mean: of the values of each channel; by default what the weights say, else the run.
        std: standard deviation of the same; likewise.
        interpolation: filter of the resize; likewise.
        batch_size: images in one forward pass; ranks that torchrun started share the images out.
        workers: loader processes, by default one for each core, 16 at most.
        loader_timeout: seconds without a batch from them after which the evaluation stops; 0 waits forever.
        device: where to evaluate.
        report_file: write an HTML file there, with pictures of the worst confusions; for one evaluation only.
        observers: called with a `Noted` for what the figures rest on and `Working` for what goes on, on every rank.

    Raises:
        InputError: something is missing or does not fit together.
    """
    filters = _filters(low_pass, high_pass)
    if report_file is not None and max(len(sizes), 1) * len(filters) > 1:
        raise InputError("a report is of one evaluation: give one size and one filter, or leave out `report_file`")
    if report_file is not None:
        _check_report_file(report_file)
    files = _checkpoints(run, weights, report_file) if checkpoints else [weights]
    origin = read_trained(run, files[0], model, model_kwargs, which)
    config, stored = origin.config, origin.weights
    chosen = data or config.data
    if not chosen:
        raise InputError("no data: give a folder of images, or 'generated'")
    of_run = run is not None and is_same_data(chosen, config.data)
    if val_share is None and of_run:
        # What the run was trained on is no test of it.
        val_share = config.val_share
    check_model_kwargs(config.model_kwargs)
    sizes = list(sizes) or [origin.size]
    workers = loader_processes(workers)
    at_least(1, sizes=min(sizes), batch_size=batch_size)
    at_least(0, loader_timeout=loader_timeout)
    seen = origin.seen_with(mean, std)
    first = sizes[0]
    report = reporting(observers)
    report("scanning the data", None, None)
    notes: list[str] = []
    source, matched = _by_name(
        open_evaluation(
            chosen,
            first,
            val_share=val_share,
            train_split=config.train_split if of_run else None,
            val_split=val_split or (config.val_split if of_run else None),
            label_column=label_column or (config.label_column if of_run else None),
            note=notes.append,
            counted=lambda images: report("scanning the data", images, None),
        ),
        stored,
    )
    notes += matched
    notes += [*unranked(source), *_other_kind(source, stored)]
    sets = label_sets_of(source)
    task = None if sets is None else MultiLabel(sets)
    report("making the model", None, None)
    network = create_model(config.model, num_classes=len(source.classes), final_size=first, **config.made_with)
    notes += load_weights(network, stored, first).notes(stored.path)
    check_sizes(network, sizes)
    target = choose_device(device)
    network = network.to(target)
    tell = noting(observers)
    for note in notes:
        tell(note)
    results: list[SizedEvaluation] = []
    with open_ranks() as ranks, loader_failures():
        for size in sizes:
            images = EvaluationSet(
                source,
                size,
                replace(seen, interpolation=interpolation or seen.interpolation),
                crop_pct=origin.told.crop_at(size) if crop_pct is None else crop_pct,
                workers=workers,
                batch_size=batch_size,
                timeout=loader_timeout,
                ranks=ranks,
            )
            for place, file in enumerate(files):
                report(f"evaluating at {size} px", *((place, len(files)) if checkpoints else (None, None)))
                if checkpoints:
                    stored = read_trained(run, file, model, model_kwargs, which).weights
                if checkpoints or size != first:
                    # From the stored ones, not from those of another size: there and back would blur positions.
                    load_weights(network, stored, size)
                with at_size(network, size) as fitted:
                    own = evaluate(
                        [View("model", fitted, size, filtered=filtered) for _, filtered in filters],
                        images,
                        device=target,
                        # As the run evaluated itself; weights from elsewhere are evaluated in float32.
                        autocast=fast_autocast_dtype(config.optimization, target) if run is not None else None,
                        task=task,
                    )
                results += [
                    SizedEvaluation(
                        size,
                        result,
                        **left,
                        classes=tuple(source.classes),
                        step=checkpoint.step_of(file) if checkpoints and file is not None else None,
                    )
                    for result, (left, _) in zip(own, filters, strict=True)
                ]
                if not all(math.isfinite(result.loss) for result in own):
                    tell(f"the loss at {size} px is not finite: the model's outputs are no numbers")
        if report_file is not None and ranks.is_first:
            report("writing the report", None, None)
            ((size, evaluation),) = ((result.size, result.evaluation) for result in results)
            report_evaluation((run or stored.path).name, evaluation, size, source, seen, report_file)
    # By checkpoint: images are prepared once for each size.
    return sorted(results, key=lambda result: result.step or 0)


def _check_report_file(path: Path) -> None:
    """Refuse a file that is none of ours to write over: what a run left, and what is no report."""
    check_folder_of(path, "report_file")
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"a report is HTML, and {path} is called otherwise: let `report_file` end in .html")
    if path.name == REPORT and holds_run(path.parent):
        raise InputError(f"{path} is the report of the run's training: give `report_file` another name")


def _checkpoints(run: Path | None, weights: Path | None, report_file: Path | None) -> list[Path | None]:
    """What a run kept of its training, the oldest first."""
    if run is None or weights is not None or report_file is not None:
        raise InputError("`checkpoints` are those of a `run`: leave out `weights` and `report_file`")
    files: list[Path | None] = list(checkpoint.checkpoints(run / CHECKPOINTS))
    if not files:
        raise InputError(f"{run} kept no checkpoints: train with `checkpoint_keep='all'`")
    return files


def _filters(low_pass: Sequence[float], high_pass: Sequence[float]) -> list[tuple[dict[str, float], Filter | None]]:
    """What is left of images and what does it, for each evaluation of one size: all, unless something is asked for.

    Raises:
        InputError: a radius that makes no sense.
    """
    for radius in (*low_pass, *high_pass):
        if not 0 <= radius < math.inf:
            raise InputError(f"radius {radius}: it must be 0 or more periods per image")
    below = [({"low_pass": radius}, partial(low_pass_filter, radius=radius)) for radius in low_pass]
    above = [({"high_pass": radius}, partial(high_pass_filter, radius=radius)) for radius in high_pass]
    return [*below, *above] or [({}, None)]


def _by_name(source: Source, weights: Weights) -> tuple[Source, list[str]]:
    """The images under the labels that the weights have for their classes, and notes on them.

    Raises:
        InputError: the weights lack a class of the data.
    """
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


def _other_kind(source: Source, weights: Weights) -> list[str]:
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
