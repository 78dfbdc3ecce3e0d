from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from upchirp.reports.accuracy_figures import accuracy_against_time
from upchirp.reports.labels import Label, place_labels
from upchirp.reports.style import NARROW, WIDE, drawn, new_figure

Make = Callable[..., dict[str, Any]]
PLACES = st.tuples(st.floats(0, 10), st.floats(0, 10))


def boxes(figure: Figure) -> list[Bbox]:
    figure.draw_without_rendering()
    (axes,) = figure.axes
    return [text.get_window_extent() for text in axes.texts if text.get_text()]


def overlapping(found: list[Bbox]) -> list[tuple[Bbox, Bbox]]:
    return [(a, b) for place, a in enumerate(found) for b in found[:place] if a.overlaps(b)]


@settings(max_examples=15)
@given(st.lists(PLACES, min_size=1, max_size=12), st.sampled_from([WIDE, NARROW]), st.booleans())
def test_no_two_labels_meet_wherever_their_points_are(
    places: list[tuple[float, float]], width: float, centred: bool
) -> None:
    @drawn
    def draw() -> Figure:
        figure = new_figure(4, width)
        axes = figure.add_subplot()
        axes.set(xlim=(-1, 11), ylim=(-1, 11))
        labels = [
            Label(text=f"budget {k}", place=place, color="black", centred=centred) for k, place in enumerate(places)
        ]
        place_labels(figure, axes, labels)
        return figure

    figure = draw()
    assert len(boxes(figure)) == len(places)
    assert not overlapping(boxes(figure))


def test_a_label_stands_beside_what_it_must_not_cover() -> None:
    figure = new_figure(4)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    place_labels(figure, axes, [Label(text="free", place=(5, 5), color="black")])
    (free,) = boxes(figure)
    axes.texts[0].remove()
    place_labels(figure, axes, [Label(text="free", place=(5, 5), color="black")], [free])
    (moved,) = boxes(figure)
    assert not moved.overlaps(free)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("close", [0.0, 0.4, 3.0])
def test_the_arrows_label_covers_no_budget(
    make_summary: Callable[..., dict[str, Any]], close: float, width: float
) -> None:
    """Two curricula whose budgets lie around the baseline's level, where the arrows are."""
    summary = make_summary()
    for run, accuracy in zip(summary["runs"][1:], (51.25 - close, 51.25 + close / 2, 51.25 + close), strict=True):
        run["accuracy"] = [accuracy, accuracy]
    summary["runs"] += [{**run, "name": "linear"} for run in summary["runs"][1:]]
    summary["speedups"]["linear"] = {**summary["speedups"]["efficienttrain_plus_plus"], "ratio": 1.2, "seconds": 250.0}
    found = boxes(accuracy_against_time(summary, width))
    assert len(found) == 2 + 7
    assert not overlapping(found)


def test_labels_leave_the_baselines_level_free(make_summary: Callable[..., dict[str, Any]]) -> None:
    """A budget below the level, whose label would stand on its line: a seed lies where it stands otherwise."""
    summary = make_summary()
    usual, first = summary["runs"] = summary["runs"][:2]
    summary["speedups"] = {}
    usual.update(accuracy=[41.67, 41.67], train_seconds=[63.5, 63.5])
    first.update(accuracy=[42.22, 38.89], train_seconds=[42.7, 47.6])
    for run in (usual, first):
        run["mean"]["margin"] = 10.0
    figure = accuracy_against_time(summary)
    labels = boxes(figure)
    _, level = figure.axes[0].transData.transform((0, 41.67))
    assert len(labels) == 2 and not any(box.y0 <= level <= box.y1 for box in labels)
