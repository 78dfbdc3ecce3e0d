import re
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from tests.reports.overlaps import overlapping_texts

from upchirp.reports.accuracy_figures import accuracy_against_compute, accuracy_against_time
from upchirp.reports.compare_figures import (
    accuracy_during_training,
    stage_seconds,
    stages_on_a_time_line,
)
from upchirp.reports.examples import ExampleRow, example_strip
from upchirp.reports.style import NARROW, WIDE, add_legend, new_figure, to_svg

Make = Callable[..., dict[str, Any]]
DRAWINGS = (accuracy_against_compute, accuracy_against_time, accuracy_during_training, stages_on_a_time_line)


def curves(axes: Axes) -> list[Any]:
    """Lines with points of their own; `axvline` and `axhline` have x or y in the axes' coordinates."""
    return [line for line in axes.get_lines() if line.get_transform() == axes.transData]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_final_accuracy_has_a_point_per_seed_and_a_line_through_the_means(make_summary: Make) -> None:
    figure = accuracy_against_time(make_summary())
    (axes,) = figure.axes
    assert axes.get_xlabel() == "training time (min)"
    assert axes.get_ylabel() == "top-1 accuracy at 64 px (%)"
    sizes = sorted(len(points.get_offsets()) for points in axes.collections if isinstance(points, PathCollection))
    assert sizes == [1, 2, 2, 2, 2, 3]  # four runs of two seeds; one and three means
    bars = [bar.get_segments() for bar in axes.collections if isinstance(bar, LineCollection)]
    assert [round(float(top - bottom), 6) for own in bars for (_, bottom), (_, top) in own] == [2.2] * 4
    _, line = curves(axes)
    np.testing.assert_allclose(line.get_xdata(), np.array([160.5, 213.5, 320.5]) / 60)
    np.testing.assert_allclose(line.get_ydata(), [49, 52, 54])
    assert legend(figure) == ["constant", "efficienttrain_plus_plus"]


def test_figures_of_times_leave_out_what_was_disturbed(make_summary: Make) -> None:
    summary = make_summary()
    usual, first, second, _ = summary["runs"]
    for run, count in ((usual, [True, False]), (first, [False, True]), (second, [False, False])):
        run["times_count"] = count
    (axes,) = accuracy_against_time(summary).axes
    sizes = sorted(len(points.get_offsets()) for points in axes.collections if isinstance(points, PathCollection))
    assert sizes == [1, 1, 1, 2, 2]  # seeds of the three runs that are left; one mean and two
    _, line = curves(axes)
    # Accuracies are those of the tables, of all seeds.
    np.testing.assert_allclose(line.get_xdata(), np.array([161, 320.5]) / 60)
    np.testing.assert_allclose(line.get_ydata(), [49, 54])
    during = accuracy_during_training(summary).axes
    assert [axes.get_title(loc="left").split("budget ")[1] for axes in during[:2]] == ["0.5", "1"]
    # Final size and current bandwidth of each seed, and one of the baseline.
    assert [len(curves(axes)) for axes in during] == [3, 5]
    assert sum(stage_seconds(first)) == pytest.approx(161)
    assert sum(stage_seconds(second)) == pytest.approx(213.5)


def test_figures_of_times_are_empty_where_all_was_disturbed(make_summary: Make) -> None:
    summary = make_summary()
    for run in summary["runs"]:
        run["times_count"] = [False, False]
    for draw in (accuracy_against_time, accuracy_during_training):
        assert not any(curves(axes) for axes in draw(summary).axes)


def test_accuracy_against_compute_takes_it_relative_to_the_baselines(make_summary: Make) -> None:
    summary = make_summary()
    (axes,) = accuracy_against_compute(summary).axes
    assert axes.get_xlabel() == "compute, relative to constant at its largest budget"
    _, line = curves(axes)
    np.testing.assert_allclose(line.get_xdata(), [run["relative_compute"] for run in summary["runs"][1:]])
    assert not [text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]


def test_the_arrow_leads_to_the_time_of_equal_accuracy(make_summary: Make) -> None:
    (axes,) = accuracy_against_time(make_summary()).axes
    (arrow,) = [text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]
    assert arrow.xy == pytest.approx((200 / 60, 51.25))  # type: ignore[attr-defined]
    assert arrow.get_position() == pytest.approx((300 / 60, 51.25))
    assert "1.50×" in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("kind", ["at least", "not reached"])
def test_the_arrow_tells_a_bound_and_is_left_out_if_there_is_no_speedup(make_summary: Make, kind: str) -> None:
    summary = make_summary()
    summary["speedups"]["efficienttrain_plus_plus"].update(kind=kind, **({"ratio": None} if kind[0] == "n" else {}))
    (axes,) = accuracy_against_time(summary).axes
    texts = [text.get_text() for text in axes.texts if "×" in text.get_text()]
    assert texts == (["at least 1.50×"] if kind == "at least" else [])


def test_training_has_a_panel_per_run_with_a_line_per_seed(make_summary: Make) -> None:
    figure = accuracy_during_training(make_summary())
    assert [axes.get_title(loc="left").split("budget ")[1] for axes in figure.axes] == ["0.5", "0.67", "1"]
    for axes in figure.axes:
        assert len(curves(axes)) == 2 * 3  # two seeds: final size, current bandwidth, baseline
        assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 54
    assert figure.get_supxlabel() == "training time (min)"
    assert figure.get_supylabel() == "top-1 accuracy (%)"
    assert "at the current bandwidth" in legend(figure)


def test_training_shows_the_average_if_there_is_one(make_summary: Make) -> None:
    summary = make_summary(seeds=1, alone=True)
    history = summary["runs"][0]["history"][0]
    history.append({**history[-1], "weights": "ema", "top1": 60.0})
    (axes,) = accuracy_during_training(summary).axes
    (line,) = curves(axes)
    assert list(line.get_ydata()) == [60.0]


def test_the_time_line_has_a_bar_per_run_as_long_as_its_training(make_summary: Make) -> None:
    figure = stages_on_a_time_line(make_summary())
    (axes,) = figure.axes
    assert axes.get_xlabel() == "training time (min)"
    assert [label.get_text() for label in axes.get_yticklabels()][1] == "efficienttrain_plus_plus, budget 0.5"
    assert len(axes.patches) == 1 + 3 * 3
    last = axes.patches[-1]
    assert last.get_x() + last.get_width() == pytest.approx(320.5 / 60)  # type: ignore[attr-defined]
    assert legend(figure) == ["B = 28 px", "B = 46 px", "B = 64 px"]


def test_stage_seconds_follow_measured_speeds(make_summary: Make) -> None:
    run = make_summary()["runs"][1]
    seconds = stage_seconds(run)
    assert sum(seconds) == pytest.approx(160.5)
    stages = run["plan"]["stages"]
    slow, fast = run["images_per_second"]["64"], run["images_per_second"]["28"]
    assert seconds[2] / seconds[0] == pytest.approx(stages[2]["samples"] / stages[0]["samples"] * fast / slow)


def test_stage_seconds_fall_back_to_the_plans_cost(make_summary: Make) -> None:
    run = make_summary()["runs"][1]
    del run["images_per_second"]["46"]
    # Of the compute, Table 6 spends 20, 40 and 40 % in the three stages; whole steps move that a little.
    np.testing.assert_allclose(np.array(stage_seconds(run)) / 160.5, [0.2, 0.4, 0.4], atol=0.01)


@pytest.mark.parametrize("draw", DRAWINGS)
@pytest.mark.parametrize("names", [("_hidden", "$x", "a$b$\\frac{"), ("<script>", "日本", "n" * 200)], ids=str)
def test_any_name_can_be_drawn(make_summary: Make, draw: Callable[..., Figure], names: tuple[str, ...]) -> None:
    summary = make_summary(seeds=1)
    for run, name in zip(summary["runs"][1:], names, strict=True):
        run["name"] = name
    summary["speedups"] = dict.fromkeys(names, summary["speedups"]["efficienttrain_plus_plus"])
    figure = draw(summary)
    assert len(to_svg(figure)) > 1000


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("draw", DRAWINGS)
def test_texts_do_not_overlap(make_summary: Make, draw: Callable[..., Figure], width: float) -> None:
    assert not overlapping_texts(draw(make_summary(), width=width))


@pytest.mark.parametrize(
    "draw", [accuracy_against_time, accuracy_against_compute, accuracy_during_training], ids=lambda draw: draw.__name__
)
def test_no_axis_of_percentages_goes_beyond_100(make_summary: Make, draw: Callable[..., Figure]) -> None:
    summary = make_summary()
    for run in summary["runs"]:
        run["accuracy"] = [100.0 for _ in run["accuracy"]]
        run["history"] = [[{**point, "top1": 100.0} for point in history] for history in run["history"]]
    for axes in draw(summary).axes:
        assert axes.get_ylim()[1] == 100
        # Half of each mark at the edge lies outside.
        assert not any(mark.get_clip_on() for mark in (*axes.lines, *axes.collections) if is_mark(mark))


def is_mark(artist: Any) -> bool:
    return not isinstance(artist, LineCollection)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("length", [8, 24])
def test_legends_are_as_wide_as_the_figure_at_most(width: float, length: int) -> None:
    """Five short names and a long one: what fits depends on how they fall into columns."""
    figure = new_figure(3, width)
    labels = [*(f"B = {side} px in the stage" for side in (28, 46, 54, 64)), "m" * length]
    add_legend(figure, [Patch(label=label) for label in labels])
    (legend,) = figure.legends
    assert legend.get_window_extent().width <= figure.bbox.width


def test_drawing_leaves_the_users_settings_alone_and_does_not_depend_on_them(make_summary: Make) -> None:
    summary = make_summary(seeds=1)
    expected = to_svg(accuracy_against_time(summary))
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20, "svg.fonttype": "none"}):
        assert to_svg(accuracy_against_time(summary)) == expected
        assert matplotlib.rcParams["font.size"] == 20


def test_strips_align_and_keep_pixels_square() -> None:
    images = [np.full((28, 28, 3), value, np.uint8) for value in (10, 20)]
    row = ExampleRow(bandwidth=28, progress=(0, 0.2), magnitude=(0, 2), images=images)
    strip = example_strip(row, 64)
    assert strip.shape == (56, 2 * 128 + 8, 4)
    # 28 pixels twice as large, in the middle of cells of 128.
    np.testing.assert_array_equal(np.flatnonzero(strip[0, :, 0] == 10), np.arange(36, 92))
    np.testing.assert_array_equal(np.flatnonzero(strip[-1, :, 0] == 20), 136 + np.arange(36, 92))


@pytest.mark.parametrize("final_size", [8, 64, 224, 384, 1024])
def test_strips_fit_the_page_or_hold_one_image(final_size: int) -> None:
    image = np.zeros((final_size, final_size, 3), np.uint8)
    row = ExampleRow(bandwidth=final_size, progress=(0, 1), magnitude=(0, 0), images=[image] * 8)
    assert example_strip(row, final_size).shape[1] <= max(720, final_size)


@pytest.mark.parametrize("draw", DRAWINGS)
def test_figures_have_light_greys_in_the_dark_and_no_background(
    make_summary: Make, draw: Callable[..., Figure]
) -> None:
    svg = to_svg(draw(make_summary(seeds=1))).decode()
    assert "prefers-color-scheme: dark" in svg
    # Every grey is a variable, and nothing as large as the page is filled.
    assert not re.search(r": #(1f2933|5b6672|9aa3ad|e9ecef|ffffff)", svg)
    first_patch = svg[svg.index('<g id="patch_1">') :]
    assert "fill: none" in first_patch[: first_patch.index("</g>")]
