"""The model of the step time: its limits, and the published figures it has to give."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.benchmarks.conftest import load

from upchirp.curriculum import pixels

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
scaling, all_reduce = load("scaling"), load("all_reduce")
INFINITE = scaling.Network(latency=0.0, bandwidth=float("inf"))
SLOW = scaling.Network(latency=1e-4, bandwidth=1e9)
ranks = st.integers(1, 512)
sides = st.sampled_from([96, 160, 224])
batches = st.integers(1, 64).map(lambda n: 1024 * n)


@given(ranks=ranks, side=sides, batch=batches)
def test_without_network_and_loader_only_compute_counts(ranks: int, side: int, batch: int) -> None:
    time = scaling.step_time(scaling.DEIT_SMALL, None, INFINITE, ranks=ranks, bandwidth=side, batch_size=batch)
    assert time.exposed == time.loader == 0
    assert time.total == pytest.approx(batch / ranks * scaling.DEIT_SMALL.seconds_per_image[side])


@given(side=sides, batch=batches)
def test_one_rank_reduces_nothing(side: int, batch: int) -> None:
    time = scaling.step_time(scaling.DEIT_SMALL, None, SLOW, ranks=1, bandwidth=side, batch_size=batch)
    assert time.exposed == 0


@given(ranks=st.integers(2, 512), side=sides, batch=batches, fresh=st.floats(0.1, 1))
def test_the_slower_of_loader_and_device_counts(ranks: int, side: int, batch: int, fresh: float) -> None:
    loading = scaling.Loading(images_per_second={96: 900.0, 160: 800.0, 224: 700.0}, workers=3)
    time = scaling.step_time(
        scaling.DEIT_SMALL, loading, SLOW, ranks=ranks, bandwidth=side, batch_size=batch, fresh=fresh
    )
    assert time.loader == pytest.approx(fresh * batch / ranks / (3 * loading.images_per_second[side]))
    assert time.total == max(time.compute + time.exposed, time.loader)
    assert (time.bound_by == "loader") == (time.loader > time.compute + time.exposed)


@given(size=st.floats(1e3, 1e9), ranks=st.integers(2, 512))
def test_a_ring_moves_nearly_twice_the_bytes_and_more_ranks_never_help(size: float, ranks: int) -> None:
    link = scaling.Network(latency=0.0, bandwidth=1e9)
    assert size / 1e9 <= scaling.all_reduce_seconds(size, ranks, link) < 2 * size / 1e9
    fewer, more = (scaling.all_reduce_seconds(size, n, SLOW) for n in (ranks, ranks + 1))
    assert fewer < more


def test_on_a_perfect_machine_the_speed_up_is_the_computational_one() -> None:
    made = scaling.plans(200, 300, 1_281_167, 4096, None, 1)
    for ranks in (1, 64):
        ratios = scaling.speedups(made, scaling.DEIT_SMALL, None, INFINITE, ranks)
        for name, run in made.items():
            assert ratios[name] == pytest.approx(run.speedup(300, pixels), rel=1e-3)


@pytest.mark.parametrize("gbit", [40.0, 100.0, 400.0])
def test_table_13_follows_from_one_fitted_figure(gbit: float) -> None:
    """Table 13, CSWin-Base: 1.4 on 64 GPUs at half the budget is fitted, the other seven are predicted."""
    for row in scaling.table_13(gbit=gbit, overlap=0.5)["rows"]:
        assert row["model"] == pytest.approx(row["paper"], abs=0.101), row


def test_published_compute_is_the_papers() -> None:
    images = 150 * 14_197_122
    assert scaling.CSWIN_BASE.seconds_per_image[224] * images / 86_400 == pytest.approx(126.9)
    assert 1 / scaling.DEIT_SMALL.seconds_per_image[96] == pytest.approx(5329)


@given(fixed=st.floats(0, 0.1), slope=st.floats(1e-5, 1e-2))
def test_compute_is_fitted(fixed: float, slope: float) -> None:
    points = [
        {"bandwidth": side, "rows": rows, "seconds": fixed + rows * slope * side / 96}
        for side in (96, 224)
        for rows in (16, 64, 256)
    ]
    found, slopes = scaling.fit_compute(points)
    assert found == pytest.approx(fixed, abs=1e-5)
    assert slopes[224] == pytest.approx(slope * 224 / 96, rel=1e-2)


@given(latency=st.floats(1e-6, 1e-3), gbit=st.floats(1, 400), ranks=st.integers(2, 64))
def test_a_network_is_fitted(latency: float, gbit: float, ranks: int) -> None:
    link = scaling.Network(latency=latency, bandwidth=gbit * 1e9 / 8)
    sizes = all_reduce.SIZES
    seconds = [scaling.all_reduce_seconds(size, ranks, link, bucket=np.inf if size == 0 else size) for size in sizes]
    found = all_reduce.fit(zip(sizes, seconds, strict=True), ranks)
    assert found == pytest.approx((link.latency, link.bandwidth), rel=1e-3)


def test_stored_results_are_the_scripts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stored = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(sys, "argv", ["benchmarks/scaling.py", "--json"])
    scaling.main()
    made = json.loads(capsys.readouterr().out)
    for name in ("table_13", "workload", "loading", "network", "speedups", "steps"):
        assert made[name] == stored[name], name
