from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp import constant, efficienttrain_plus_plus, plan
from upchirp.compare.progress import Pace, seconds_of
from upchirp.training.events import Finished, Started, Stepped

USUAL = plan(constant(64), epochs=2, dataset_size=1000, batch_size=100)
CURRICULUM = plan(efficienttrain_plus_plus(64, multiple=2), epochs=2, dataset_size=1000, batch_size=100)


def trained(pace: Pace, number: int, *, seconds: float) -> None:
    """Train a run as a whole, each step in the same time."""
    _, made = pace.runs[number - 1]
    pace.begin(number)
    pace(Started(plan=made, step=0, output=Path()))
    for step in made.steps():
        pace(Stepped(step=step, seconds=seconds, wait_seconds=0))
    pace(Finished(step=made.total_steps, top1=0, best_top1=0, train_seconds=0))


@given(st.integers(0, CURRICULUM.total_steps), st.floats(1, 1e4))
def test_a_plan_takes_its_images_over_the_speeds(step: int, speed: float) -> None:
    whole = seconds_of(CURRICULUM, dict.fromkeys(CURRICULUM.bandwidths, speed), from_step=step)
    images = sum(each.batch_size for each in CURRICULUM.steps(step))
    assert whole == pytest.approx(images / speed)


def test_an_unknown_bandwidth_is_scaled_by_its_pixels() -> None:
    images = [stage.samples for stage in CURRICULUM.stages]
    expected = sum(n * (stage.bandwidth / 64) ** 2 / 500 for n, stage in zip(images, CURRICULUM.stages, strict=True))
    assert seconds_of(CURRICULUM, {64: 500.0}) == pytest.approx(expected)
    assert seconds_of(CURRICULUM, {}) is None


def test_what_is_left_of_all_runs() -> None:
    pace = Pace([("a", USUAL), ("a", CURRICULUM), ("a", USUAL)])
    pace.begin(1)
    assert pace.seconds_left() is None
    trained(pace, 1, seconds=0.5)
    pace.begin(2)
    # 200 images/s at 64 px; the last run takes what the first one took.
    later = seconds_of(CURRICULUM, {64: 200.0})
    assert later is not None
    assert pace.seconds_left() == pytest.approx(later + 10.0, rel=0.01)
    trained(pace, 2, seconds=0.5)
    trained(pace, 3, seconds=0.5)
    assert pace.seconds_left() == pytest.approx(0.0)


def test_what_was_trained_before_is_not_left() -> None:
    half = CURRICULUM.total_steps // 2
    pace = Pace([("a", USUAL), ("a", CURRICULUM)], {"a": {64: 200.0}}, [USUAL.total_steps, half])
    pace.begin(1)
    rest = seconds_of(CURRICULUM, {64: 200.0}, from_step=half)
    assert pace.seconds_left() == rest
    pace.begin(2)
    assert pace.seconds_left() == rest


def test_speeds_of_before_count_until_there_are_own_ones() -> None:
    pace = Pace([("a", USUAL)], {"a": {64: 100.0}, "b": {64: 1.0}})
    pace.begin(1)
    assert pace.seconds_left() == pytest.approx(20.0)
    pace(Started(plan=USUAL, step=0, output=Path()))
    pace(Stepped(step=USUAL.step(0), seconds=0.5, wait_seconds=0))
    assert pace.speeds == {"a": {64: 200.0}, "b": {64: 1.0}}
