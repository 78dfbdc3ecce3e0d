from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from upchirp import constant, efficienttrain_plus_plus, plan
from upchirp.compare.outcomes import Entry, Outcome
from upchirp.compare.summary import summarise
from upchirp.training.evaluation.predictions import Predictions

USUAL, CHEAP, WHOLE = Entry("constant", 1.0), Entry("linear", 0.5), Entry("linear", 1.0)
IMAGES = 2000


def outcome(
    entry: Entry,
    seed: int,
    *,
    top1: float,
    seconds: float,
    speed: float = 500.0,
    indices: Sequence[int] = range(IMAGES),
    computes: str = "",
) -> Outcome:
    """A run that guesses the first images right, at one speed."""
    make = constant if entry == USUAL else efficienttrain_plus_plus
    made = plan(make(64), epochs=4, dataset_size=10_000, batch_size=100)
    steady = {"kind": "train", "images_per_second": speed, "wait_share": 0}
    stages = [(stage, made.stages[stage].bandwidth) for stage in range(len(made.stages)) for _ in range(3)]
    log: list[dict[str, Any]] = [
        {"stage": stage, "bandwidth": side, "train_seconds": place, **steady}
        for place, (stage, side) in enumerate(stages, 1)
    ]
    figures = {"progress": 1.0, "bandwidth": 64, "weights": "model", "top1": top1, "loss": 1.0, "images": IMAGES}
    log.append({"kind": "evaluation", "train_seconds": seconds, **figures})
    chosen = np.array(indices, np.int32)
    right = chosen < round(IMAGES * top1 / 100)
    return Outcome(
        folder=Path("out") / entry.name / f"seed{seed}",
        plan=made,
        top1=top1,
        train_seconds=seconds,
        log=log,
        computes=computes,
        predictions=Predictions(indices=chosen, labels=np.ones(len(chosen), np.int32), guesses=right.astype(np.int32)),
    )


def summed(**changed: Any) -> dict[str, Any]:
    """Half the budget ends 4 points below, the whole one 4 points above the baseline; `changed` is of one run."""
    of_runs = {USUAL: (50.0, 300.0), CHEAP: (46.0, 150.0), WHOLE: (54.0, 310.0)}
    outcomes = {
        entry: [outcome(entry, seed, **{"top1": top1 + seed / 10, "seconds": seconds}) for seed in (0, 1)]
        for entry, (top1, seconds) in of_runs.items()
    }
    if changed:
        outcomes[WHOLE][1] = outcome(WHOLE, 1, **{"top1": 54.1, "seconds": 310.0, **changed})
    return summarise(outcomes, seeds=(0, 1), root=Path("out"))


def test_runs_at_one_speed_give_a_ratio_with_an_interval() -> None:
    summary = summed()
    speedup = summary["speedups"]["linear"]
    assert speedup["kind"] == "interpolated"
    assert speedup["ratio"] == pytest.approx(300 / 230, rel=1e-6) == summary["speedup_at_equal_accuracy"]
    assert speedup["low"] < speedup["ratio"] < speedup["high"]
    assert [run["difference"] and run["difference"]["seen"] for run in summary["runs"]] == [None, True, True]
    assert all(run["difference"]["paired"] for run in summary["runs"][1:])
    assert (summary["disturbed"], summary["speeds_compared"]) == ({"linear": []}, {"linear": True})
    assert summary["validation_images"] == IMAGES


def test_a_slow_run_withholds_the_ratio_and_is_named() -> None:
    summary = summed(speed=400.0)
    assert summary["speedups"]["linear"]["kind"] == "disturbed"
    assert summary["speedup_at_equal_accuracy"] is None
    assert {each["slow"] for each in summary["disturbed"]["linear"]} == {"linear-1 seed 1"}
    assert [run["times_count"] for run in summary["runs"]] == [[True, True], [True, True], [True, False]]
    assert summed(speed=430.0)["disturbed"] == {"linear": []}


def test_times_of_disturbed_runs_widen_no_interval_of_others() -> None:
    other = Entry("other", 1.0)

    def interval(**second: float) -> tuple[float, float]:
        outcomes = {
            entry: [outcome(entry, seed, top1=top1, seconds=seconds) for seed in (0, 1)]
            for entry, top1, seconds in ((USUAL, 50.0, 300.0), (CHEAP, 46.0, 150.0), (WHOLE, 54.0, 310.0))
        }
        outcomes[other] = [
            outcome(other, 0, top1=50.0, seconds=300.0),
            outcome(other, 1, **{"top1": 50.0, "seconds": 300.0, **second}),
        ]
        speedup = summarise(outcomes, seeds=(0, 1), root=Path("out"))["speedups"]["linear"]
        return speedup["low"], speedup["high"]

    assert interval(seconds=900.0, speed=170.0) == pytest.approx(interval(), rel=1e-3)
    assert interval(seconds=900.0)[1] > 1.1 * interval()[1]


def test_what_computes_in_another_way_is_held_to_no_speed_but_its_own() -> None:
    outcomes = {
        entry: [outcome(entry, 0, top1=top1, seconds=seconds, speed=speed, computes=computes)]
        for entry, top1, seconds, speed, computes in (
            (USUAL, 50.0, 300.0, 500.0, "fast"),
            (CHEAP, 46.0, 150.0, 300.0, "faithful"),
            (WHOLE, 54.0, 310.0, 300.0, "faithful"),
        )
    }
    summary = summarise(outcomes, seeds=(0,), root=Path("out"))
    assert (summary["disturbed"], summary["speeds_compared"]) == ({"linear": []}, {"linear": True})
    assert summary["speedups"]["linear"]["kind"] == "interpolated"


def test_the_baselines_own_curve_is_read_at_the_accuracies_of_the_other() -> None:
    half = Entry("constant", 0.5)
    of_runs = {USUAL: (50.0, 300.0), half: (46.0, 150.0), CHEAP: (48.0, 120.0), WHOLE: (53.0, 240.0)}
    outcomes = {entry: [outcome(entry, 0, top1=top1, seconds=s)] for entry, (top1, s) in of_runs.items()}
    summary = summarise(outcomes, seeds=(0,), root=Path("out"))
    readings = {(each["name"], each["budget"]): each for each in summary["equal_accuracy"]["linear"]}
    # At 48 % the baseline takes 225 s between its budgets; at 50 % the other one 168 s between its own.
    assert readings["linear", 0.5]["time"]["ratio"] == pytest.approx(225 / 120, rel=0.01)
    assert readings["constant", 1.0]["time"]["ratio"] == pytest.approx(300 / 168, rel=0.01)
    assert readings["constant", 0.5]["time"]["kind"] == "at least"
    assert [run["name"] for run in summary["runs"]][:2] == ["constant", "constant"]
    assert list(summary["speedups"]) == ["linear"]


def test_images_that_one_run_could_not_read_are_left_out_of_all() -> None:
    whole, part = summed(), summed(indices=range(10, IMAGES))
    assert all(run["difference"]["paired"] for run in part["runs"][1:])
    for run, other in zip(whole["runs"][1:], part["runs"][1:], strict=True):
        assert run["difference"]["of_images"] == pytest.approx(other["difference"]["of_images"], rel=0.02)
