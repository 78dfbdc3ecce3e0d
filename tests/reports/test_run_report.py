import re
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reports.overlaps import overlapping_texts

from upchirp import efficienttrain_plus_plus, plan
from upchirp.reports.class_tables import ClassScores
from upchirp.reports.examples import Examples
from upchirp.reports.run_figures import curves, stage_seconds, time_of_stages
from upchirp.reports.run_html import RunRecord, write_run_report
from upchirp.reports.style import NARROW, WIDE

PLAN = plan(efficienttrain_plus_plus(64, multiple=2), epochs=9, dataset_size=20_000, batch_size=250)
ENDS = list(accumulate(stage.steps for stage in PLAN.stages))


def log() -> list[dict[str, Any]]:
    """A log line and an evaluation at the end of each stage, which takes 10, 20 and 30 s."""
    records: list[dict[str, Any]] = []
    for place, (step, seconds) in enumerate(zip(ENDS, (10.0, 30.0, 60.0), strict=True)):
        at = {"step": step, "train_seconds": seconds}
        speeds = {"images_per_second": 500.0, "wait_share": 0.25}
        speeds |= {"prepared_per_second": 250.0, "megabytes_per_second": 1.2}
        records.append({"kind": "train", "stage": place, "loss": 3.0 - place, "learning_rate": 1e-3, **speeds, **at})
        for weights, bandwidth in (("model", 64), ("ema", 64), ("model", PLAN.stages[place].bandwidth)):
            records.append(
                {"kind": "evaluation", "weights": weights, "bandwidth": bandwidth, "top1": 20.0 * place, **at}
            )
    spent = {"computing": 45.0, "waiting": 12.0, "changing_bandwidth": 3.0, "evaluating": 15.0}
    end = {"top1": 61.5, "best_top1": 62.0, "train_seconds": 60.0, "spent": spent}
    return [*records, {"kind": "end", "step": ENDS[-1], **end}]


@pytest.fixture
def record(examples: list[Examples]) -> Callable[..., RunRecord]:
    def make(count: int = 3, *, scored: dict[str, Any] | None = None, **changes: Any) -> RunRecord:
        rng = np.random.default_rng(0)
        labels = np.tile(np.arange(count), 4)
        guesses = np.where(rng.random(4 * count) < 0.6, labels, rng.integers(0, count, 4 * count))
        matrix = np.zeros((count, count), np.int64)
        np.add.at(matrix, (labels, guesses), 1)
        pairs = [(int(a), int(b), int(matrix[a, b])) for a, b in np.argwhere(matrix) if a != b]
        scores: dict[str, Any] = {
            "classes": [f"name {k}" for k in range(count)],
            "right": matrix.diagonal(),
            "images": matrix.sum(axis=1),
            "confusions": sorted(pairs, key=lambda pair: -pair[2]),
            "matrix": matrix,
            **(scored or {}),
        }
        values: dict[str, Any] = {
            "name": "run",
            "settings": {"model": "resnet10t", "lr": 1e-3, "drop": None},
            "plan": PLAN,
            "log": log(),
            "facts": {"data": "tiny"},
            "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gib": 15.6, "accelerator": None},
            "versions": {"torch": "2.6.0"},
            "scores": ClassScores(**scores),
            "examples": examples[0],
            **changes,
        }
        return RunRecord(**values)

    return make


def page(record: RunRecord, folder: Path) -> str:
    write_run_report(record, folder / "report.html")
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    return (folder / "report.html").read_text(encoding="utf-8")


def texts(html: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.S).split())


def test_it_tells_plan_and_what_happened(record: Callable[..., RunRecord], tmp_path: Path) -> None:
    html = page(record(), tmp_path)
    assert re.findall(r'<section id="(\w+)"', html) == ["curves", "stages", "examples", "classes", "setup"]
    shown = texts(html)
    assert "resnet10t: 61.50 % top-1" in shown
    # Progress, B, magnitude, steps, images, batch, compute; time, share of it, images/s, prepared/s, MB/s, waiting.
    first = PLAN.stages[0]
    planned = f"0 to 20 28 0.0 to 1.8 {first.steps:,} {first.samples:,} 250 20"
    assert f"{planned} 10.0 s 17 {first.samples / 10:,.0f} 250 1.2 25" in shown
    for part in ("Some CPU, 2 cores", "torch 2.6.0", "data tiny", "lr 0.001"):
        assert part in shown
    assert html.count("data:image/png;base64,") == 3
    assert html.count("data:image/svg+xml;base64,") == 4
    assert not re.search(r"(?:src|href|srcset)=\"(?!data:)", html)
    # What stands there on a phone, and in the dark.
    assert "(max-width: 40rem)" in html and "prefers-color-scheme: dark" in html


def test_no_magnitude_is_told_without_randaugment(
    record: Callable[..., RunRecord], examples: list[Examples], tmp_path: Path
) -> None:
    plain = replace(PLAN, stages=tuple(replace(stage, magnitude=None) for stage in PLAN.stages))
    rows = [replace(row, magnitude=None) for row in examples[0].rows]
    shown = texts(page(record(plan=plain, examples=replace(examples[0], rows=rows)), tmp_path))
    first = PLAN.stages[0]
    assert "magnitude" not in shown and f"0 to 20 28 {first.steps:,} {first.samples:,} 250 20" in shown


def test_a_small_matrix_is_a_table_of_counts(tmp_path: Path, record: Callable[..., RunRecord]) -> None:
    matrix = np.array([[3, 1], [0, 4]])
    scored = {
        "classes": ["cat", "<dog>"], "matrix": matrix, "right": matrix.diagonal(), "images": matrix.sum(axis=1),
        "confusions": [(0, 1, 1)],
    }  # fmt: skip
    html = page(record(2, scored=scored), tmp_path)
    assert re.findall(r'--share: ([\d.]+)">(\d*)<', html) == [("0.75", "3"), ("0.25", "1"), ("0.00", ""), ("1.00", "4")]
    shown = texts(html)
    assert "cat 75.0 3 of 4 &lt;dog&gt; 100.0 4 of 4" in shown
    assert "cat &lt;dog&gt; 1 of 4 25" in shown
    assert 'class="map"' not in html and "All " not in shown.split("All settings")[0]


@pytest.mark.parametrize(("classes", "has_map", "listed"), [(24, False, True), (25, True, True), (1000, True, True)])
def test_many_classes_have_a_map_and_their_worst(
    record: Callable[..., RunRecord], tmp_path: Path, classes: int, has_map: bool, listed: bool
) -> None:
    html = page(record(classes), tmp_path)
    assert ('class="map"' in html) == has_map
    assert ('class="heat"' in html) == (not has_map)
    assert (f"All {classes:,} classes" in html) == listed
    assert len(html) < 1_500_000


def test_classes_without_number_are_told_by_their_worst(record: Callable[..., RunRecord], tmp_path: Path) -> None:
    html = page(record(3000, scored={"matrix": None, "classes": ()}), tmp_path)
    assert 'class="map"' not in html and "classes</summary>" not in html
    assert len(re.findall(r'<td class="text">class \d+</td><td>[\d.]+</td>', html)) == 12


def test_a_run_without_evaluations_or_guesses_has_a_report(record: Callable[..., RunRecord], tmp_path: Path) -> None:
    shown = texts(page(record(log=[], scores=None, examples=None), tmp_path))
    for part in ("The log holds no evaluations.", "The guesses were not kept.", "No image could be shown."):
        assert part in shown


def test_names_are_escaped(record: Callable[..., RunRecord], tmp_path: Path) -> None:
    attack = "\"'><script>alert(1)</script>"
    made = record(
        3, name=attack, scored={"classes": [attack] * 3}, settings={"model": attack, attack: attack},
        facts={attack: attack}, notes=[attack],
    )  # fmt: skip
    assert "<script" not in page(made, tmp_path)


def test_stages_take_what_the_log_says() -> None:
    assert stage_seconds(log(), PLAN) == [10.0, 20.0, 30.0]
    assert stage_seconds(log()[:4], PLAN) == [10.0, 0.0, 0.0]
    assert PLAN.spent(PLAN.total_steps) == pytest.approx(PLAN.equivalent_epochs)


def test_no_percentage_is_above_100() -> None:
    everything = [{**line, "top1": 100.0} if line["kind"] == "evaluation" else line for line in log()]
    by_time, by_compute, *_ = curves(everything, PLAN).axes
    assert by_time.get_ylim()[1] == by_compute.get_ylim()[1] == 100


def test_no_percentage_is_below_0() -> None:
    nothing = [{**line, "top1": 0.0} if line["kind"] == "evaluation" else line for line in log()]
    by_time, by_compute, *_ = curves(nothing, PLAN).axes
    assert by_time.get_ylim() == by_compute.get_ylim() == (0, 1)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_curves_are_those_of_the_log_and_no_texts_overlap(width: float) -> None:
    figure = curves(log(), PLAN, width)
    by_time, by_compute, loss, rate = figure.axes
    for axes, places in ((by_time, [10, 30, 60]), (by_compute, [PLAN.spent(step) for step in ENDS])):
        averaged = axes.get_lines()[0]
        np.testing.assert_allclose(averaged.get_xdata(), places)
        assert list(averaged.get_ydata()) == [0, 20, 40]
    assert list(loss.get_lines()[0].get_ydata()) == [3, 2, 1]
    assert list(rate.get_lines()[0].get_ydata()) == [1e-3] * 3
    for drawn in (figure, time_of_stages(log(), PLAN, width)):
        assert not overlapping_texts(drawn)


def test_where_the_time_went(record: Callable[..., RunRecord], tmp_path: Path) -> None:
    text = " ".join(re.sub("<[^>]*>", " ", page(record(), tmp_path)).split())
    assert "computing 45.0 s 60 waiting for data 12.0 s 16 changing bandwidth 3.0 s 4 evaluating 15.0 s 20" in text
    before = [{key: value for key, value in line.items() if key != "spent"} for line in log()]
    assert "Where the time went" not in page(record(log=before), tmp_path)
