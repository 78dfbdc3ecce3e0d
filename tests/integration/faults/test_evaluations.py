"""What goes wrong in or before an evaluation costs no training, and the log is that of an undisturbed run."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.faults.conftest import Faults
from tests.runs import Make

from upchirp import TrainConfig, train
from upchirp.training import Evaluated, Event, Interrupted, Saved, Stepped, load_checkpoint, read_metrics

TIMES = ("train_seconds", "spent")


def logged(folder: Path) -> list[dict[str, Any]]:
    """The log: evaluations and the end without their times, of other lines which they are."""
    lines = [{key: value for key, value in line.items() if key not in TIMES} for line in read_metrics(folder)]
    return [
        line if line["kind"] in ("evaluation", "end") else {"kind": line["kind"], "step": line["step"]}
        for line in lines
    ]


def fail() -> None:
    raise OSError("the disk fails")


def evaluated_steps(folder: Path) -> list[int]:
    return sorted({line["step"] for line in read_metrics(folder) if line["kind"] == "evaluation"})


def test_the_last_evaluation_fails(
    faults: Faults, config: Make, monkeypatch: pytest.MonkeyPatch, latest: Callable[[TrainConfig], Path]
) -> None:
    run = config()
    total = evaluated_steps(faults.undisturbed)[-1]

    def evaluate(*arguments: Any, **options: Any) -> Any:
        if arguments[1].step == total:
            fail()
        return own(*arguments, **options)

    from upchirp.training.run import evaluations

    own = evaluations.evaluate_state
    monkeypatch.setattr(evaluations, "evaluate_state", evaluate)
    assert f"step_{total:09d}.pt: once that is mended, go on" in faults.stopped(run)
    assert load_checkpoint(latest(run))["state"]["step"] == total
    monkeypatch.undo()
    faults.resume(run)
    assert logged(run.output) == logged(faults.undisturbed)


@pytest.mark.parametrize("when", ["saved", "half evaluated"])
def test_a_run_ends_around_an_evaluation(faults: Faults, config: Make, when: str) -> None:
    step = evaluated_steps(faults.undisturbed)[0]
    run = config(checkpoint_interval=step)

    def observe(event: Event) -> None:
        # An evaluation has three lines, and this is its first.
        if isinstance(event, Saved if when == "saved" else Evaluated):
            fail()

    assert f"step_{step:09d}.pt: once that is mended, go on" in faults.stopped(run, observe)
    faults.resume(run)
    assert logged(run.output) == logged(faults.undisturbed)


@pytest.mark.parametrize("during", [Stepped, Evaluated])
def test_a_signal_comes_with_an_evaluation(
    faults: Faults, config: Make, during: type[Event], latest: Callable[[TrainConfig], Path]
) -> None:
    step = evaluated_steps(faults.undisturbed)[0]
    run = config()
    seen: list[Event] = []

    def observe(event: Event) -> None:
        here = event.step.index + 1 if isinstance(event, Stepped) else getattr(event, "step", None)
        if isinstance(event, Evaluated):
            seen.append(event)
        if isinstance(event, during) and here == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as stopped:
        train(run, observers=[observe])
    assert stopped.value.step == step == load_checkpoint(latest(run))["state"]["step"]
    assert bool(seen) == (during is Evaluated), "a run that is to stop does not evaluate first"
    faults.resume(run)
    assert logged(run.output) == logged(faults.undisturbed)
