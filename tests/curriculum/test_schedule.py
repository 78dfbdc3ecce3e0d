"""The learning rate over progress, whatever its shape."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp import InputError, Plan, plan, preset
from upchirp.curriculum import LearningRate

SHAPES = st.sampled_from(["cosine", "linear", "wsd"])
SHARES = st.floats(0, 0.5)


@given(SHAPES, SHARES, st.floats(0.01, 0.5), st.lists(st.floats(0, 1), min_size=2), st.floats(1e-3, 1))
def test_rates_rise_to_the_ceiling_and_fall_to_the_last(
    shape: str, warmup: float, decay: float, progresses: list[float], ceiling: float
) -> None:
    rates = LearningRate(warmup=warmup, warmup_lr=1e-6, min_lr=1e-5, shape=shape, decay=decay)  # type: ignore[arg-type]
    values = [(progress, rates.at(progress, ceiling=ceiling)) for progress in sorted(progresses)]
    assert all(1e-6 <= value <= ceiling * (1 + 1e-9) for _, value in values)
    for (before, first), (after, second) in itertools.pairwise(values):
        if after < warmup:
            assert first <= second + 1e-12
        elif before >= warmup:
            assert first >= second - 1e-12
    assert rates.at(warmup, ceiling=ceiling) == pytest.approx(ceiling)
    assert rates.at(1.0, ceiling=ceiling) == pytest.approx(1e-5)


@given(SHARES, st.floats(0.01, 0.5), st.floats(0, 1))
def test_shapes(warmup: float, decay: float, share: float) -> None:
    own = {"warmup": warmup, "min_lr": 0.0, "decay": decay}
    linear = LearningRate(shape="linear", **own)
    assert linear.at(warmup + share * (1 - warmup), ceiling=2.0) == pytest.approx(2 * (1 - share), abs=1e-6)
    wsd = LearningRate(shape="wsd", **own)
    stable = warmup + share * (1 - decay - warmup)
    assert wsd.at(stable, ceiling=2.0) == pytest.approx(2.0, abs=1e-6)
    assert wsd.at(1 - decay * (1 - share), ceiling=2.0) == pytest.approx(2 * (1 - share**0.5), abs=1e-6)


@given(SHAPES, st.floats(0.01, 1))
def test_the_mean_is_that_of_the_rates(shape: str, decay: float) -> None:
    rates = LearningRate(warmup_lr=0.0, min_lr=0.0, shape=shape, decay=decay)  # type: ignore[arg-type]
    values = [rates.at((k + 0.5) / 2000, ceiling=3.0) for k in range(2000)]
    assert sum(values) / 2000 == pytest.approx(3 * rates.mean_share, rel=1e-2)


def test_plans_keep_the_shape() -> None:
    made = plan(preset("constant"), epochs=10, warmup_passes=1, schedule=LearningRate(shape="wsd", min_lr=0.0))
    assert Plan.from_dict(made.to_dict()) == made
    ceiling = made.stages[0].learning_rate
    assert made.step(made.total_steps // 2).learning_rate == ceiling
    assert made.step(made.total_steps - 1).learning_rate < ceiling / 10
    data = made.to_dict()
    del data["schedule"]["shape"], data["schedule"]["decay"]
    # Plans of before there were shapes have cosines.
    assert Plan.from_dict(data).schedule == dataclasses.replace(made.schedule, shape="cosine")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": "step"}, "unknown shape 'step'"),
        ({"decay": 0.0}, "`sched_decay` is 0.0"),
        ({"shape": "wsd", "warmup": 0.3, "decay": 0.8}, "are more than all of it"),
        ({"warmup": 1.0}, "warm-up is 1.0"),
    ],
)
def test_wrong_schedules(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LearningRate(**changes)  # type: ignore[arg-type]
