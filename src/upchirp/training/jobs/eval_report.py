"""The report of an evaluation, with pictures of what was confused."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from upchirp.data import DECODE_ERRORS, Augmentation, EvalTransform, Source, normalize, scale_of
from upchirp.reports.words import figure_text
from upchirp.training.assets.examples import pixels_of
from upchirp.training.engine.label_scores import LabelScores
from upchirp.training.evaluation.evaluation import Evaluation
from upchirp.training.evaluation.predictions import Predictions
from upchirp.training.jobs.report import scores_of

if TYPE_CHECKING:
    from upchirp.reports.precision_figures import PrecisionCurve

_PAIRS, _PICTURES, _SIDE = 12, 8, 96


def report_evaluation(
    name: str, evaluation: Evaluation, size: int, source: Source, seen: Augmentation, path: Path
) -> None:
    """Write it to a file."""
    # matplotlib takes most of a second, which others need not spend.
    from upchirp.reports.eval_html import Confused, write_eval_report, write_precision_report

    facts = f"{evaluation.images:,} images at {size} px · {evaluation.describe()}"
    if evaluation.scores is not None:
        headline = figure_text(evaluation.best, evaluation.score)
        by_class = evaluation.scores.by_class(source.classes)
        write_precision_report(name, headline, facts, by_class, lowest_curves(evaluation.scores, by_class), path)
        return
    predictions = evaluation.predictions
    assert predictions is not None
    scores = scores_of(predictions, source.classes)
    confused = [
        Confused(
            label=scores.name(label),
            guess=scores.name(guess),
            images=images,
            pictures=list(islice(_pictures(source, seen, predictions, label, guess), _PICTURES)),
        )
        for label, guess, images in scores.confusions[:_PAIRS]
    ]
    write_eval_report(name, f"{evaluation.top1:.2f} % top-1", facts, scores, confused, path)


def lowest_curves(scores: LabelScores, by_class: Sequence[Mapping[str, Any]]) -> list["PrecisionCurve"]:
    """Those of the classes of lowest average precision."""
    from upchirp.reports.precision_figures import MOST_CURVES, PrecisionCurve

    known = [label for label, row in enumerate(by_class) if row["images"]]
    made = []
    for label in sorted(known, key=lambda label: by_class[label]["average_precision"])[:MOST_CURVES]:
        curve = scores.curve(label)
        made.append(
            PrecisionCurve(
                name=by_class[label]["class"],
                precisions=curve.precisions,
                recalls=curve.recalls,
                average=float(scores.precisions[label]),
                best=(curve.best.recall, curve.best.precision),
                share=float(scores.truth[:, label].mean()),
            )
        )
    return made


def _pictures(
    source: Source, seen: Augmentation, predictions: Predictions, label: int, guess: int
) -> Iterator[NDArray[np.uint8]]:
    """Images of a class that were taken for another, small."""
    transform = EvalTransform(_SIDE, 1.0, channels=seen.channels)
    for index in predictions.indices[(predictions.labels == label) & (predictions.guesses == guess)].tolist():
        try:
            pixels = torch.from_numpy(transform(source.load(index)[0])).permute(2, 0, 1)[None]
            yield from pixels_of(normalize(pixels, seen.mean, seen.std, scale_of(pixels)), seen)
        except DECODE_ERRORS:
            continue
