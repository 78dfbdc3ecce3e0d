"""Precision against recall, class by class, and the report that shows it."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from tests.reports.overlaps import overlapping_texts

from upchirp.reports.precision_figures import MOST_CURVES, precision_curves
from upchirp.reports.style import NARROW, WIDE
from upchirp.training import LabelScores
from upchirp.training.evaluation.evaluation import Evaluation
from upchirp.training.jobs import eval_report


@pytest.fixture(scope="module")
def scores() -> LabelScores:
    """Of classes that are told better and better, the last of which no image has."""
    rng = np.random.default_rng(0)
    truth = rng.random((900, MOST_CURVES + 3)) < 0.2
    made = rng.standard_normal(truth.shape) + 0.2 * np.arange(truth.shape[1]) * truth
    truth[:, -1] = False
    # In steps, so that many images share a score.
    return LabelScores(indices=np.arange(900), truth=truth, scores=(4 * made).round())


def test_the_worst_classes_are_drawn_and_the_area_is_their_average_precision(scores: LabelScores) -> None:
    names = [f"class $ {label}" for label in range(scores.truth.shape[1])]
    curves = eval_report.lowest_curves(scores, scores.by_class(names))
    assert len(curves) == MOST_CURVES and {"class $ 13", "class $ 14"}.isdisjoint(curve.name for curve in curves)
    for width in (WIDE, NARROW):
        figure = precision_curves(curves, width=width)
        assert not overlapping_texts(figure)
        for axes, curve in zip(figure.axes, curves, strict=False):
            label = names.index(curve.name)
            expected = 100 * average_precision_score(scores.truth[:, label], scores.scores[:, label])
            assert axes.get_title(loc="left").splitlines()[1] == f"AP {expected:.1f} %"
            chance, line, point = axes.get_lines()
            recalls, precisions = (np.asarray(values, float) for values in line.get_data())
            # Steps hold for what is to their left.
            assert (np.diff(recalls) * precisions[1:]).sum() / 100 == pytest.approx(expected)
            assert line.get_drawstyle() == "steps-pre" and np.all(np.diff(recalls) >= 0)
            best = 2 / (1 / recalls[1:] + 1 / precisions[1:])
            (recall,), (precision,) = point.get_data()
            assert 2 / (1 / recall + 1 / precision) == pytest.approx(best.max())
            assert chance.get_ydata()[0] == pytest.approx(100 * scores.truth[:, label].mean())


def test_a_report_says_that_it_draws_the_worst_ones(scores: LabelScores, tmp_path: Path) -> None:
    evaluation = Evaluation(figures={**scores.figures, "loss": 0.5}, images=900, best="mAP", scores=scores)

    class Named:
        classes = tuple(f"<b>{label}" for label in range(scores.truth.shape[1]))

    eval_report.report_evaluation("made", evaluation, 32, Named(), None, tmp_path / "eval.html")  # type: ignore[arg-type]
    page = (tmp_path / "eval.html").read_text()
    assert f"The {MOST_CURVES} classes of lowest average precision." in page and "<b>" not in page
    assert page.count("data:image/svg+xml") == 2 and page.index("Class by class") < page.index(
        "Precision against recall"
    )
