"""Loader workers as processes: their batches, what they outlive, and how they end."""

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import cv2
from torch.utils.data import DataLoader

from upchirp.data.workers.deaths import LoaderFailure, line, told
from upchirp.errors import InputError, one_line

_SECONDS_TO_DIE = 5
_PARENT_POLL_SECONDS = 1.0


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Keep torch's advice on the number of workers away: it counts cores, and workers wait for disks too.

    `check_workers` refuses what cannot help.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        yield


def loader_of(dataset: Any, **options: Any) -> DataLoader[Any]:
    """Torch's loader, without its advice on the number of workers."""
    with _no_advice():
        return DataLoader(dataset, **options)


def batches_of(loader: DataLoader[Any], timeout: float) -> Iterator[Any]:
    """The batches of a loader, in one iteration.

    The loader's own `timeout` does not see a worker that stops as a whole after it has handed a batch over: the
    tensors are fetched from it only then, without a limit of time.

    Args:
        loader: gives what is yielded, or an `InputError` to raise.
        timeout: seconds without a batch after which the workers are killed; 0 waits forever, as does loading in
            this process.

    Raises:
        InputError: a worker handed one over.
        LoaderFailure: a worker died or stalled.
    """
    starting = _imports_script(loader)
    batches: Any = _started(loader, starting)
    workers = getattr(batches, "_workers", ())
    _end_at_exit(workers)
    watch = _Watch(workers, timeout)
    try:
        while True:
            watch.asked = time.monotonic()
            try:
                prepared = next(batches)
            except StopIteration:
                return
            except (OSError, EOFError, RuntimeError) as error:
                watch.raise_failure(error, starting)
                raise
            watch.asked, starting = None, False
            if isinstance(prepared, InputError):
                raise prepared
            yield prepared
    finally:
        watch.ended.set()
        # Those that stay for the next iteration end with their loader.
        if not loader.persistent_workers:
            _end(batches)
        # Not with the frame, which an error may hold.
        del batches


def _end(batches: Any) -> None:
    """End the workers of an iteration now, whoever still holds it, as an error does.

    Torch ends them when nobody holds it. Should that be the garbage collector, which may close their queues first, a
    thread writes to closed files, or to others that have their numbers by then.
    """
    with contextlib.suppress(RuntimeError):
        getattr(batches, "_shutdown_workers", lambda: None)()


def _imports_script(loader: DataLoader[Any]) -> bool:
    """Whether workers are started by importing the script, and get the data as a pickle."""
    context: Any = loader.multiprocessing_context or multiprocessing
    return loader.num_workers > 0 and context.get_start_method() != "fork"


def _started(loader: DataLoader[Any], starting: bool) -> Any:
    try:
        with _no_advice():
            # New versions of torch say at length what is said below in a line.
            warnings.filterwarnings("ignore", "Got pickle error")
            with _handler_of_ended_children():
                return iter(loader)
    except (OSError, EOFError, RuntimeError) as error:
        if reported := told(error, starting=starting):
            raise LoaderFailure(reported) from error
        if starting and isinstance(error, BrokenPipeError | EOFError):
            # It died before it had read what it was given.
            raise LoaderFailure(line("", 1, starting=True)) from error
        raise
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if starting and "pickle" in str(error):
            raise InputError(
                f"the data cannot be handed to loader workers ({one_line(error)}): define their class at the top of a "
                "module, or load without workers"
            ) from error
        raise


@contextlib.contextmanager
def _handler_of_ended_children() -> Iterator[None]:
    """Keep torch from raising what became of a worker out of a signal handler.

    Raised in the middle of anything, the error can cut the closing of a file short, which is then closed once more
    under a number that another file has by now. The loader looks after its workers every five seconds anyhow.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


class _Watch:
    """Kills the workers of an iteration that stall, whatever they hang in: nothing else would end the wait for them."""

    def __init__(self, workers: Sequence[BaseProcess], timeout: float) -> None:
        self.asked: float | None = None
        """When the batch that is waited for was asked for."""
        self.ended = threading.Event()
        """Set when no more batches are wanted."""
        self._workers = workers
        self._timeout = timeout
        self._stalled = False
        if workers and timeout:
            threading.Thread(target=self._watch, daemon=True).start()

    def raise_failure(self, error: BaseException, starting: bool) -> None:
        """Raise what became of the workers, if it is they who failed.

        Raised here, as an error that its own frames hold would keep the loader's processes until the very end.
        """
        # A death is seen at the connection before it is seen at the process, and torch may report it meanwhile.
        with contextlib.suppress(RuntimeError):
            for worker in self._workers:
                worker.join(_SECONDS_TO_DIE if self._stalled else 0.1)
        if self._stalled:
            raise LoaderFailure(
                f"the loader gave no batch for {self._timeout:g} s: a worker hangs, or the disk or network under the "
                "data does: check them, or allow more by `loader_timeout`"
            ) from error
        if dead := next((worker for worker in self._workers if worker.exitcode), None):
            raise LoaderFailure(line(f"(pid {dead.pid})", dead.exitcode, starting=starting)) from error
        if reported := told(error, starting=starting):
            raise LoaderFailure(reported) from error

    def _watch(self) -> None:
        while not self.ended.wait(min(1.0, self._timeout / 10)):
            asked = self.asked
            if asked is not None and time.monotonic() - asked > self._timeout:
                self._stalled = True
                for worker in self._workers:
                    worker.kill()
                return


_workers: "weakref.WeakSet[BaseProcess]" = weakref.WeakSet()
"""Loader workers that were started."""
_finalized_in = 0
"""The process in which `multiprocessing` knows of `_kill_workers`."""


def _end_at_exit(workers: Sequence[BaseProcess]) -> None:
    """Let workers end with this process, whoever still holds their iterator."""
    global _finalized_in
    if not workers:
        return
    _workers.update(workers)
    # Last in, first out: before torch and multiprocessing, which wait for workers that are busy.
    atexit.unregister(_kill_workers)
    atexit.register(_kill_workers)
    if _finalized_in != os.getpid():
        _finalized_in = os.getpid()
        # A process that multiprocessing started waits for them before it comes to atexit.
        Finalize(None, _kill_workers, exitpriority=100)


def _kill_workers() -> None:
    workers = [child for child in multiprocessing.active_children() if child in _workers]
    if workers and hasattr(signal, "SIGCHLD"):
        # torch would call it a failure. Threads may not change handlers, and none of them exits.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in workers:
        worker.kill()


def outlive_interrupts(worker: int) -> None:
    """Leave Ctrl-C, SIGTERM and SIGHUP to the training process, which ends its loader workers after it has saved.

    They often reach the whole process group, and more than once. A worker ends when the training process has ended,
    however it ended, so none is left behind.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_SECONDS)
    os._exit(1)


def start_worker(worker: int) -> None:
    """Prepare a worker process: it outlives interrupts and computes on one core."""
    outlive_interrupts(worker)
    # One core each, and threads that the training process may have started do not survive the fork.
    cv2.setNumThreads(0)


def start_in_background(worker: int) -> None:
    """The same, and let it wait for idle time."""
    start_worker(worker)
    if hasattr(os, "nice"):
        os.nice(19)
