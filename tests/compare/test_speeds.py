from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp.compare.speeds import Work, disturbances, steady_speeds
from upchirp.curriculum import constant, efficienttrain_plus_plus, plan

FULL = Work(64, 32, 0)


def records(*windows: tuple[int, float, float]) -> list[dict[str, Any]]:
    """Log lines from stage, end in seconds and images per second."""
    return [{"stage": stage, "train_seconds": end, "images_per_second": speed} for stage, end, speed in windows]


def test_the_first_window_of_a_stage_does_not_count() -> None:
    made = plan(efficienttrain_plus_plus(64, multiple=2), epochs=3, dataset_size=1000, batch_size=32)
    log = records((0, 5.0, 10.0), (0, 6.0, 900.0), (0, 7.0, 880.0), (1, 8.0, 5.0), (2, 9.0, 1.0), (2, 10.0, 300.0))
    speeds = steady_speeds(log, made)
    assert speeds == {Work(made.stages[0].bandwidth, 32, 0): 880.0, FULL: 300.0}


def test_long_windows_count_more() -> None:
    made = plan(constant(64), epochs=3, dataset_size=1000, batch_size=32)
    log = records((0, 1.0, 1.0), (0, 2.0, 500.0), (0, 10.0, 400.0), (0, 10.1, 50.0))
    assert steady_speeds(log, made) == {FULL: 400.0}


@given(st.lists(st.floats(1, 1e5), min_size=1, max_size=6))
def test_runs_are_disturbed_if_the_slowest_has_less_than_85_percent_of_the_fastest(speeds: list[float]) -> None:
    found = disturbances({f"run {k}": {FULL: speed} for k, speed in enumerate(speeds)})
    assert bool(found) == (min(speeds) < 0.85 * max(speeds))
    for each in found:
        assert (each.slow_speed, each.fast_speed) == (min(speeds), max(speeds))
        assert each.share == pytest.approx(1 - min(speeds) / max(speeds))


def test_only_the_same_work_is_compared() -> None:
    speeds = {
        "usual": {FULL: 1000.0},
        "other batch": {Work(64, 256, 0): 2000.0},
        "replay": {Work(64, 32, 1): 2000.0},
        "smaller": {Work(28, 32, 0): 5000.0},
        "alike": {FULL: 900.0},
    }
    assert disturbances(speeds) == []
