import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp import Plan, Selection, constant, efficienttrain_plus_plus, plan
from upchirp.curriculum import expected_savings

SIZE, BATCH = 1000, 10


def small_plan(epochs: float) -> Plan:
    return plan(efficienttrain_plus_plus(64, multiple=2), epochs=epochs, dataset_size=SIZE, batch_size=BATCH)


def simulated_passes(run: Plan, selection: Selection) -> float:
    """Passes begin where the one before ends, and leave out r / 2 of the images if they begin before `until`."""
    start, length, number = 0.0, float(SIZE), 0
    for step in run.steps():
        while step.first_fresh + BATCH > start + length:
            start, number = start + length, number + 1
            length = SIZE * (1 - selection.prune / 2) if step.progress < selection.until else SIZE
    return number + (run.total_fresh_samples - start) / length


@given(st.floats(0.5, 60), st.floats(0.05, 0.95), st.floats(0.05, 1.0), st.integers(0, 2))
def test_passes_are_those_of_a_simulation(epochs: float, prune: float, until: float, replays: int) -> None:
    run = small_plan(epochs).with_replay(replays)
    selection = Selection(prune=prune, until=until)
    savings = expected_savings(run, selection)
    # A pass that begins before `until` is short beyond it too: less than a pass is left out more.
    assert savings.passes - 0.1 <= simulated_passes(run, selection) <= savings.passes + 1
    assert savings.passes_without == run.total_fresh_samples / SIZE
    assert savings.left_out == pytest.approx(1 - savings.passes_without / savings.passes)
    assert 0 <= savings.left_out < prune / 2


@given(st.floats(2, 60), st.floats(0.05, 0.95), st.floats(0.05, 1.0))
def test_the_smaller_budget_makes_as_many_passes(epochs: float, prune: float, until: float) -> None:
    selection = Selection(prune=prune, until=until)
    whole = expected_savings(small_plan(epochs), selection)
    smaller = expected_savings(small_plan(epochs * whole.budget), selection)
    # Stages are whole steps of 10 of 1000 images.
    assert smaller.passes == pytest.approx(whole.passes_without, abs=0.1)


def test_less_than_a_pass_saves_nothing() -> None:
    savings = expected_savings(plan(constant(64), epochs=0.5, dataset_size=SIZE, batch_size=BATCH), Selection())
    assert (savings.left_out, savings.budget, savings.passes) == (0.0, 1.0, 0.5)


def test_the_line_names_epochs_or_a_share() -> None:
    savings = expected_savings(plan(constant(64), epochs=100, dataset_size=SIZE, batch_size=BATCH), Selection())
    assert "leave out 22 % of the images" in savings.describe(100)
    # 1 + (87.5 - 1) / 0.75 + 12.5
    assert "128.8 passes over the data instead of 100.0" in savings.describe(100)
    assert "`epochs=77.7` would make as many passes as 100 without selection: 1.29x less" in savings.describe(100)
    assert "78 % of the budget would make as many passes as all of it without" in savings.describe()
