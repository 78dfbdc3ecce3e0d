"""A wall clock that jumps: names, orders and durations do not depend on it."""

import os
import random
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from tests.integration.faults.conftest import Faults
from tests.runs import Make, interrupted

from upchirp import TrainConfig, train
from upchirp.training import read_metrics
from upchirp.training.folders import held_folder


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the wall clock finds it up to a year before or after the true time."""
    rng, now, now_ns = random.Random(0), time.time, time.time_ns
    year = 365 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: now() + rng.randint(-year, year))
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + rng.randint(-year, year) * 10**9)


@pytest.mark.usefixtures("jumping")
def test_a_run_and_its_resuming(faults: Faults, config: Make, latest: Callable[[TrainConfig], Path]) -> None:
    run = config(checkpoint_interval=3, log_interval=1)
    interrupted(run, 7)
    # The latest is the one of the highest step, whatever the files' times say.
    for age, path in enumerate((run.output / "checkpoints").iterdir()):
        os.utime(path, (age, age))
    os.utime(latest(run), (0, 0))
    notes = faults.resume(run)
    assert any("step_000000007.pt" in note for note in notes)
    records = read_metrics(run.output)
    steps = [record["step"] for record in records if record["kind"] == "train"]
    assert steps == list(range(1, steps[-1] + 1))
    seconds = [record["train_seconds"] for record in records]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] <= seconds[-1] < 600
    assert all(0 <= record["wait_share"] <= 1 for record in records if record["kind"] == "train")
    assert all(record["images_per_second"] > 0 for record in records if record["kind"] == "train")


def test_two_runs_of_the_same_second_have_two_folders(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Stopped":
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(held_folder, "datetime", Stopped)
    outputs = [train(config(output=None, epochs=1, evaluations=1)).output.as_posix() for _ in range(2)]
    first = "runs/test_vit-20260102-030405"
    assert outputs == [first, f"{first}-2"]
