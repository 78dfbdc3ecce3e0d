from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp import Plan, constant, efficienttrain_plus_plus, plan
from upchirp.curriculum import plans
from upchirp.curriculum.table import WIDTH


def test_a_plan_prints_as_its_table() -> None:
    made = plan(efficienttrain_plus_plus(64, multiple=2), epochs=9, dataset_size=20_000, batch_size=250)
    head, *rows = str(made).splitlines()
    assert head.split() == ["progress", "B", "steps", "images", "batch", "magnitude", "max", "lr", "compute"]
    assert [row.split()[2] for row in rows] == ["28", "46", "64"]
    assert [int(row.split()[3].replace(",", "")) for row in rows] == [stage.steps for stage in made.stages]
    assert eval(repr(made), vars(plans)) == made


def test_replay_has_a_column_of_its_own() -> None:
    made = plan(efficienttrain_plus_plus(), epochs=200).with_replay(1)
    first = str(made).splitlines()[1].split()
    assert "decoded" in str(made).splitlines()[0]
    assert first[first.index("279.0") :][:4] == ["279.0", "M", "139.5", "M"]


def test_there_is_no_magnitude_without_randaugment() -> None:
    made = plan(efficienttrain_plus_plus(), epochs=200)
    plain = replace(made, stages=tuple(replace(stage, magnitude=None) for stage in made.stages))
    assert str(plain).splitlines()[0].split() == ["progress", "B", "steps", "images", "batch", "max", "lr", "compute"]
    assert [step.magnitude for step in plain.steps(plain.total_steps - 1)] == [None]
    assert Plan.from_dict(plain.to_dict()) == plain


@given(
    st.sampled_from([constant, efficienttrain_plus_plus]),
    st.floats(1, 100_000),
    st.integers(10_000, 10**11),
    st.integers(1, 65_536),
    st.integers(0, 9),
)
def test_it_fits_a_terminal(make: Any, epochs: float, size: int, batch: int, replays: int) -> None:
    try:
        made = plan(make(), epochs=epochs, dataset_size=size, batch_size=batch)
    except ValueError:
        return
    lines = str(made.with_replay(replays)).splitlines()
    assert len(lines) == 1 + len(made.stages)
    # Runs of a billion steps and more than a trillion images are nobody's.
    if made.total_steps < 10**8 and made.total_samples < 10**12:
        assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize("size", [100, 5000])
def test_small_runs_are_counted_in_images(size: int) -> None:
    assert f"{size:,}" in str(plan(constant(), epochs=1, dataset_size=size, batch_size=size))
