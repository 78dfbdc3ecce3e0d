"""Loader workers that are killed, or hang: one line in time, and the last good checkpoint."""

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.faults.conftest import Faults
from tests.runs import Make, at_step

from upchirp import InputError, TrainConfig
from upchirp.data import Source, open_data
from upchirp.data.workers import processes
from upchirp.training import EvalLoading, EvaluationSet, Origin, evaluate_weights
from upchirp.training.probing import shared_memory


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """As a library that waits for a lock which nobody frees: no signal but SIGKILL ends it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(3600)


@dataclass
class Disturbed:
    """A source that does something to the worker which loads an image, once in all processes."""

    source: Source
    action: Callable[[], None]
    index: int
    done: Path
    """Made before the action is taken."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    def __len__(self) -> int:
        return len(self.source)

    def describe(self, index: int) -> str:
        return self.source.describe(index)

    def load(self, index: int) -> Any:
        if index == self.index and multiprocessing.parent_process() is not None and not self.done.exists():
            self.done.touch()
            self.action()
        return self.source.load(index)


@pytest.fixture
def data(image_folder: Path, tmp_path: Path) -> Callable[..., tuple[Source, Source]]:
    """Training and validation images of which one set is disturbed at its image 7."""

    def make(where: str, action: Callable[[], None]) -> tuple[Source, Source]:
        train, val = open_data(image_folder)
        done = tmp_path / "done"
        if where == "training":
            return Disturbed(train, action, 7, done), val
        return train, Disturbed(val, action, 7, done)

    return make


PATIENCE = 60.0
"""Seconds that a batch may take: more than a busy machine needs to start the workers that give the first."""
HASTE = 100
"""So many seconds pass in one where the loader is watched, once a worker hangs."""
DIED, HANGS = "was killed, mostly because memory ran out", "the loader gave no batch for 60 s"


class Hurrying:
    """Time as the watch over workers sees it, which may begin to hurry."""

    def __init__(self, hurries: Callable[[], bool]) -> None:
        self._hurries = hurries
        self._since: float | None = None

    def monotonic(self) -> float:
        now = time.monotonic()
        if self._since is None and self._hurries():
            self._since = now
        return now if self._since is None else now + HASTE * (now - self._since)

    sleep = staticmethod(time.sleep)


def message_of(action: Callable[[], None]) -> str:
    return DIED if action is kill else HANGS


def hurry(monkeypatch: pytest.MonkeyPatch, parts: tuple[Source, Source]) -> None:
    """Let time hurry for the watch over workers once one is disturbed."""
    (done,) = (part.done for part in parts if isinstance(part, Disturbed))
    monkeypatch.setattr(processes, "time", Hurrying(done.exists))


@pytest.mark.parametrize(("where", "action"), [("training", kill), ("training", hang), ("evaluation", kill)])
def test_a_worker(
    faults: Faults,
    config: Make,
    data: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    action: Callable[[], None],
) -> None:
    run = config(workers=2, checkpoint_interval=1, loader_timeout=PATIENCE if action is hang else 600.0)
    parts = data(where, action)
    with monkeypatch.context() as patched:
        hurry(patched, parts)
        message = faults.stopped(run, data=parts)
    assert message_of(action) in message
    assert ("`loader_timeout`" if action is hang else "`workers`") in message
    assert next(part.done for part in parts if isinstance(part, Disturbed)).exists()
    faults.resume(replace(run, loader_timeout=600.0), data=parts)


def test_a_worker_that_is_killed_from_outside(faults: Faults, config: Make, latest: Callable[..., Path]) -> None:
    run = config(workers=2, checkpoint_interval=2)

    def kill_them() -> None:
        # All, as some may be an evaluation's that has ended.
        for child in multiprocessing.active_children():
            child.kill()

    message = faults.stopped(run, at_step(3, kill_them))
    assert DIED in message
    assert f"{latest(run)}: once that is mended, go on with: upchirp train --resume auto" in message
    faults.resume(run)


def test_a_worker_of_an_evaluation_alone(data: Callable[..., Any]) -> None:
    _, val = data("evaluation", kill)
    images = EvaluationSet(val, 32, workers=1, batch_size=4)
    with pytest.raises(InputError, match=DIED):
        list(images)
    assert sum(len(batch.labels) for batch in images) == len(val)


@pytest.mark.parametrize("action", [kill, hang])
def test_a_worker_of_the_command_that_evaluates(
    faults: Faults, data: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]
) -> None:
    parts = data("evaluation", action)
    hurry(monkeypatch, parts)
    monkeypatch.setattr("upchirp.training.assets.eval_data.open_evaluation", lambda *_, **__: parts[1])
    with pytest.raises(InputError, match=message_of(action)):
        evaluate_weights(
            Origin(run=faults.undisturbed),
            loading=EvalLoading(workers=1, loader_timeout=PATIENCE if action is hang else 600.0),
        )


STOPPED = """
import multiprocessing, os, signal, sys
from tests.integration.faults.test_loader_workers import Hurrying
from upchirp.data.workers import processes
from upchirp.training import Stepped
hangs = False
processes.time = Hurrying(lambda: hangs)
from upchirp.cli import main, train
class Display(train.Display):
    def __call__(self, event):
        global hangs
        super().__call__(event)
        if isinstance(event, Stepped) and event.step.index == 2:
            hangs = True
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGSTOP)
train.Display = Display
sys.exit(main(sys.argv[1:]))
"""


def test_a_command_whose_workers_hang_ends(
    faults: Faults,
    config: Make,
    python: Callable[..., tuple[int, list[str]]],
    words: Callable[[TrainConfig], list[str]],
) -> None:
    run = config(workers=2, checkpoint_interval=2, loader_timeout=PATIENCE)
    code, lines = python(STOPPED, *words(run))
    assert code == 2
    assert len(lines) == 1, "\n".join(lines)
    assert HANGS in lines[0]
    # What was loaded before is trained on, so that the step it ends with is not given.
    assert re.search(r"step_00000000\d\.pt: once that is mended, go on with: upchirp train --resume auto", lines[0])
    faults.resume(run)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_timeout_out_of_range_is_refused(config: Make, seconds: float) -> None:
    with pytest.raises(InputError, match="`loader_timeout` is"):
        config(loader_timeout=seconds)


def test_a_small_shared_memory_takes_fewer_workers(
    faults: Faults, config: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[int, float]] = []
    notes: list[str] = []
    made = EvaluationSet.__init__

    def note(self: EvaluationSet, *arguments: Any, **options: Any) -> None:
        seen.append((options["workers"], options["timeout"]))
        made(self, *arguments, **options)

    monkeypatch.setattr(EvaluationSet, "__init__", note)
    # Two chunks of 64 images of 64 pixels for training and as many for evaluations take 3 MiB with one worker.
    for mebibytes, workers in ((64, 2), (5, 1), (2, 0)):
        notes.clear()
        monkeypatch.setattr(shared_memory, "room", lambda size=mebibytes: int(size * 2**20))
        run = config(workers=2, loader_timeout=PATIENCE, output=str(tmp_path / str(workers)))
        faults.stopped(run, at_step(1, _fail), lambda event: notes.append(getattr(event, "message", "")))
        told = [message for message in notes if "shared memory" in message]
        assert seen[-1] == (workers, PATIENCE)
        assert bool(told) == (workers < 2)
        assert all("--shm-size" in message for message in told)


def _fail() -> None:
    raise OSError("enough")
