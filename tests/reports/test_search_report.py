"""The report of a search: its figures and its page, from a summary made up here."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from tests.reports.overlaps import overlapping_texts

from upchirp.reports.search_figures import (
    accuracy_against_cost,
    found_beside_presets,
    run_cost,
    trainings_in_order,
    tree_of_candidates,
)
from upchirp.reports.search_html import search_verdict, write_search_report
from upchirp.reports.search_schedules import schedule, schedules
from upchirp.reports.style import NARROW, WIDE

HOSTILE = '<script>alert("x")</script> $a$ & é'


def trial(*bandwidths: int, accuracy: float, end: float | None = None, loss: float | None = 1.0) -> dict[str, Any]:
    stage = len(bandwidths)
    whole = end is None
    return {
        "name": "-".join(map(str, bandwidths)) + ("" if whole else f"@{end}"),
        "bandwidths": list(bandwidths),
        "begin": stage - 1,
        "end": stage if whole else end,
        "tuning": 1,
        "accuracy": accuracy,
        "loss": loss,
        "cost": 1.0,
        "tuning_cost": 0.25,
        "seconds": 60.0,
        "parent": "-".join(map(str, bandwidths[:-1])) or None,
    }


@pytest.fixture
def summary() -> dict[str, Any]:
    return {
        "algorithm": "sequential",
        "objective": "accuracy",
        "alpha": 0.5,
        "halving": False,
        "tolerance": 0.0,
        "model": "resnet10t",
        "data": "/data/flowers",
        "images": 900,
        "search_val": 0.1,
        "subset": 1.0,
        "final_size": 64,
        "batch_size": 32,
        "seed": 0,
        "stages": 3,
        "candidates": [32, 48, 64],
        "beta": 2 / 3,
        "epochs": 3.0,
        "baseline_epochs": 4.5,
        "tuning_epochs": 0.25,
        "axis": "compute",
        "cost": "flops",
        "relative_cost": {"28": 0.2, "32": 0.25, "48": 0.5, "64": 1.0},
        "found": [32, 48, 64],
        "phases": [{"end": k / 3, "bandwidth": side} for k, side in ((1, 32), (2, 48), (3, 64))],
        "presets": {
            "linear": {"axis": "samples", "phases": [{"end": 0.5, "bandwidth": 28}, {"end": 1.0, "bandwidth": 64}]},
            "constant": {"axis": "compute", "phases": [{"end": 1.0, "bandwidth": 64}]},
        },
        "trials": [
            trial(64, accuracy=20.0),
            trial(48, accuracy=25.0),
            trial(32, accuracy=30.125),
            trial(32, 64, accuracy=31.0),
            trial(32, 48, accuracy=40.25),
            trial(32, 32, accuracy=0.0, loss=None),
        ],
        "trainings": 6,
        "equivalent_epochs": 7.5,
        "planned_equivalent_epochs": 7.5,
        "train_seconds": 360.0,
        "command": "upchirp search",
        "hardware": {"cpu": "a processor", "cores": 2, "memory_gib": 24.0, "accelerator": None},
        "versions": {"upchirp": "0.1.0"},
    }


def texts(figure: Any) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_tree_shows_every_candidate_and_the_path(summary: dict[str, Any]) -> None:
    figure = tree_of_candidates(summary)
    assert texts(figure) == ["20.00", "25.00", "30.12", "31.00", "40.25", "diverged"]
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == ["30.12", "40.25"]
    # One line for each candidate and one to the final size; the path is drawn thick: 3 stages.
    widths = [line.get_linewidth() for line in figure.axes[0].lines]
    assert len(widths) == 7 and sum(width > 2 for width in widths) == 3


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("draw", [tree_of_candidates, trainings_in_order, accuracy_against_cost, found_beside_presets])
def test_texts_do_not_overlap(summary: dict[str, Any], draw: Callable[..., Figure], width: float) -> None:
    assert not overlapping_texts(draw(summary, width=width))


def test_candidates_that_were_stopped_early_are_told(summary: dict[str, Any]) -> None:
    summary["halving"] = True
    summary["trials"][0] = trial(64, accuracy=20.0, end=0.5)
    figure = tree_of_candidates(summary)
    assert sum(line.get_linestyle() == "--" for line in figure.axes[0].lines) == 1
    assert "stopped early" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_accuracy_against_the_cost_of_the_run(summary: dict[str, Any]) -> None:
    named = {entry["name"]: entry for entry in summary["trials"]}
    assert run_cost(named["32"], named) == 1.25
    assert run_cost(named["32-48"], named) == 2.25
    figure = accuracy_against_cost(summary)
    (path,) = figure.axes[0].lines
    assert path.get_xydata().tolist() == [[1.25, 30.125], [2.25, 40.25]]
    assert len(figure.axes[0].collections) == 5, "what diverged has no place"


def test_scores_of_100_percent_end_the_axis_and_lines_leave_scores_free(summary: dict[str, Any]) -> None:
    for entry in summary["trials"]:
        entry["accuracy"] = 100.0
    (axes,) = accuracy_against_cost(summary).axes
    assert axes.get_ylim()[1] == 100
    (tree,) = tree_of_candidates(summary).axes
    assert tree.texts and all(text.get_path_effects() for text in tree.texts)


def test_schedules_on_one_axis(summary: dict[str, Any]) -> None:
    found, linear, constant = schedules(summary)
    assert [side for side, _ in found.shares] == [32, 48, 64]
    assert found.passes(3.0) == pytest.approx(4 + 2 + 1)
    # Half the images at 28 px, each for a fifth of the cost.
    cost = 0.2
    assert linear.shares[0] == (28, pytest.approx(cost / (1 + cost)))
    assert constant.passes(3.0) == 3.0
    merged = schedule("x", "compute", [{"end": 0.5, "bandwidth": 64}, {"end": 1.0, "bandwidth": 64}], {64: 1.0})
    assert merged.shares == ((64, 1.0),)
    assert len(found_beside_presets(summary).axes[0].patches) == 3 + 2 + 1


@pytest.mark.parametrize("algorithm", ["sequential", "greedy"])
def test_the_page_is_whole_and_loads_nothing(summary: dict[str, Any], tmp_path: Path, algorithm: str) -> None:
    if algorithm == "greedy":
        whole = {**trial(64, 64, 64, accuracy=50.0), "begin": 0, "tuning": 0, "tuning_cost": 0.0, "parent": None}
        summary |= {"algorithm": "greedy", "axis": "samples"}
        summary["trials"] = [whole, {**whole, "bandwidths": [32, 48, 64], "name": "32-48-64"}]
        assert "50.00 %, found" in texts(trainings_in_order(summary))
    write_search_report(summary, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert search_verdict(summary) in page
    for part in ("candidates", "accuracy-against-cost", "schedule", "use", "method"):
        assert f'id="{part}"' in page
    assert page.count("data:image/svg+xml;base64,") == 6
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "{{" not in page and "{%" not in page


def test_names_of_the_user_are_escaped(summary: dict[str, Any], tmp_path: Path) -> None:
    summary |= {"model": HOSTILE, "data": HOSTILE, "command": HOSTILE}
    summary["presets"][HOSTILE] = summary["presets"]["constant"]
    write_search_report(summary, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


def test_verdict(summary: dict[str, Any]) -> None:
    assert search_verdict(summary) == (
        "Found 32 px for 33 %, then 48 px for 33 %, then 64 px for 33 % of the compute, by 6 trainings that took 7.5 "
        "equivalent epochs, 2.5 times as many as one training by it has."
    )


def test_a_search_without_trainings_has_a_report(summary: dict[str, Any], tmp_path: Path) -> None:
    """Algorithm 1 with a known baseline and nothing below the final size to try."""
    summary |= {"algorithm": "greedy", "axis": "samples", "trials": [], "trainings": 0, "candidates": [64]}
    write_search_report(summary, tmp_path / "report.html")
    assert (tmp_path / "report.html").exists()


def test_candidates_of_about_one_cost_are_inside_the_axes(summary: dict[str, Any]) -> None:
    (only, *_) = summary["trials"]
    summary["trials"] = [{**only, "parent": None, "cost": cost, "tuning_cost": 0.2} for cost in (2.0, 2.0, 1.99)]
    (axes,) = accuracy_against_cost(summary).axes
    assert axes.get_xlim() == (0, pytest.approx(1.05 * 2.2))
