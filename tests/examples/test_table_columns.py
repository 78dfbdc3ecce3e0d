"""A curriculum over columns of a table, planned by `upchirp.plan` with a cost of its own."""

import runpy
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
EXAMPLE = Path(__file__).parents[2] / "examples" / "table_columns.py"


def test_it_is_planned_by_its_own_cost_and_learns() -> None:
    parts = runpy.run_path(str(EXAMPLE))
    right, plan = parts["run"](parts["curriculum"](30), 10.0, seed=0)
    assert right > 0.85
    assert [stage.bandwidth for stage in plan.stages] == [6, 18, 30]
    assert plan.equivalent_epochs == pytest.approx(10, abs=0.1)
    # A fifth and two fifths of the compute, in multiply-adds.
    shares = [stage.samples * parts["cost"](stage.bandwidth) for stage in plan.stages]
    assert [share / sum(shares) for share in shares] == pytest.approx([0.2, 0.4, 0.4], abs=0.02)
    assert plan.cost == "cost" and plan.total_samples > 10 * plan.dataset_size


def test_hidden_columns_get_no_gradient_from_what_is_shown() -> None:
    parts = runpy.run_path(str(EXAMPLE))
    rows, labels, *_ = parts["table"](0)
    model = parts["ColumnsFirst"](30, 2)
    parts["cross_entropy"](model(rows[:, :6]), labels).backward()
    assert model.first.weight.grad[:, :6].abs().sum() > 0 == model.first.weight.grad[:, 6:].abs().sum()
