"""A run that is killed at random steps, interrupted or terminated, and resumed, ends with the undisturbed weights."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.integration.faults.conftest import Faults
from tests.processes import start
from tests.runs import Make, losses

from upchirp import TrainConfig

pytestmark = pytest.mark.slow

ENDS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL]


def run_until(words: list[str], run: TrainConfig, step: int, signum: int) -> tuple[int, list[str]]:
    """Start a run and send it a signal once it has logged a step; returns its exit code and what it said."""
    process = start("-m", "upchirp", *words, session=True)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        done = list(losses(run.output))
        if done and done[-1] >= step:
            # As a terminal or a scheduler does it: the loader workers get the signal too, and wrappers hand it on.
            os.killpg(process.pid, signum)
            os.killpg(process.pid, signum)
            break
        time.sleep(0.005)
    ended = process.finish()
    return ended.returncode, ended.stderr.splitlines()


def test_ended_at_random_steps(faults: Faults, config: Make, words: Callable[[TrainConfig], list[str]]) -> None:
    run = config(checkpoint_interval=2, log_interval=1, workers=1, resume="auto")
    # The last steps are left out, so that the run is not over before the signal comes.
    steps = sorted(random.Random(0).sample(range(1, 10), len(ENDS)))
    for step, signum in zip(steps, ENDS, strict=True):
        code, lines = run_until(words(run), run, step, signum)
        if signum == signal.SIGKILL:
            assert code == -signum
        else:
            assert code == 128 + signum
            assert len(lines) == 1
            assert lines[0].startswith(f"upchirp: {signum.name}: stopped after step")
            assert f"; go on with: upchirp train --resume auto --output {run.output}" in lines[0]
    faults.resume(replace(run, workers=0))
    logged = list(losses(run.output))
    assert logged == list(range(1, logged[-1] + 1))
