"""Loader workers outlive what is sent to the whole process group, and end with their training process."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from upchirp import InputError
from upchirp.data import outlive_interrupts
from upchirp.data.workers import processes
from upchirp.data.workers.processes import batches_of, loader_of

CONTEXT = multiprocessing.get_context("fork")


class Numbers(Dataset[int]):
    """0, 1, 2, and from the third on it takes an hour."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        if index == 2:
            time.sleep(3600)
        return index


def loader(data: Dataset[int], **options: Any) -> DataLoader[int]:
    return DataLoader(data, batch_size=None, num_workers=1, worker_init_fn=outlive_interrupts, **options)


kept: Any = None


def hold_an_iterator(told: Any, *, waits: bool) -> None:
    """Look at a batch, get every signal twice, look at another one, and end with the iterator alive."""
    global kept
    kept = batches_of(loader(Numbers()), 0)
    next(kept)
    (worker,) = multiprocessing.active_children()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
        os.kill(worker.pid or 0, signum)
    next(kept)
    told.put(worker.pid)
    if waits:
        time.sleep(3600)


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks processes up as Linux shows them")
@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_worker_ends_with_its_training_process_and_not_before(end: str) -> None:
    told = CONTEXT.SimpleQueue()
    process = CONTEXT.Process(target=hold_an_iterator, args=(told,), kwargs={"waits": end == "kill"})
    process.start()
    worker = told.get()
    if end == "kill":
        assert is_there(worker)
        process.kill()
    process.join(50)
    assert process.exitcode == (0 if end == "exit" else -signal.SIGKILL)
    deadline = time.monotonic() + 50
    while is_there(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_there(worker)


class Dies(Numbers):
    """Ends the worker with its first sample."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __getitem__(self, index: int) -> int:
        if self.code < 0:
            os.kill(os.getpid(), -self.code)
        os._exit(self.code)


@pytest.mark.parametrize(
    ("code", "starting", "reason"),
    [
        (-signal.SIGKILL, False, "memory ran out"),
        (-signal.SIGBUS, False, "--shm-size"),
        (-signal.SIGSEGV, False, "a library that reads the data crashed"),
        (1, True, "if __name__ =="),
        (1, False, "exit code 1: what it printed says why"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_reason_of_a_death_is_told(code: int, starting: bool, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As workers that are spawned would die, without the time it takes to spawn them.
    monkeypatch.setattr(processes, "_imports_script", lambda loader: starting)
    with pytest.raises(InputError, match=reason):
        next(iter(batches_of(loader(Dies(code)), 0)))


class DiesAtFirst(Dies):
    """Ends the one worker that loads the first sample."""

    def __getitem__(self, index: int) -> int:
        return super().__getitem__(index) if index == 0 else index


def test_no_worker_is_left_when_one_died_whoever_holds_the_error() -> None:
    batches = batches_of(loader_of(DiesAtFirst(-signal.SIGKILL), batch_size=None, num_workers=2), 0)
    with pytest.raises(InputError, match="memory ran out") as held:
        next(batches)
    assert held.value.__cause__ is not None
    assert not multiprocessing.active_children()


def test_more_workers_than_cores_are_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    batches = batches_of(loader_of(Numbers(), batch_size=None, num_workers=2, worker_init_fn=outlive_interrupts), 0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]


def test_data_that_cannot_be_pickled_are_refused() -> None:
    class Inner(Numbers):
        pass

    with pytest.raises(InputError, match="at the top of a module"):
        next(iter(batches_of(loader(Inner(), multiprocessing_context="spawn"), 0)))
