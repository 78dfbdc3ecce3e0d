"""Executors of trials: processes of this machine, or the cluster of an existing scheduler; none of our own.

An executor is anything with `submit(function, *arguments)` that returns a `concurrent.futures.Future`, such as the
executors of the standard library. Beyond one machine the output folder must lie on a file system that all share.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

import torch

from upchirp.errors import InputError
from upchirp.search.config import ExecutorName

_MINUTES = 24 * 60


class Executor(Protocol):
    """Runs functions, some at the same time."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "Future[Any]":
        """Run the function, here or elsewhere, now or when there is room."""
        ...


@contextmanager
def open_executor(name: ExecutorName, at_once: int, folder: Path, *, threads: int) -> Iterator[Executor]:
    """An executor by its name.

    Raises:
        InputError: what it needs is not installed.
    """
    if name == "ray":
        yield _Ray(threads)
    elif name == "slurm":
        yield _Slurm(folder, threads, at_once)
    elif at_once == 1:
        with ThreadPoolExecutor(1) as pool:
            yield pool
    else:
        context = multiprocessing.get_context("spawn")
        slots = context.SimpleQueue()
        for slot in range(at_once):
            slots.put(slot)
        with ProcessPoolExecutor(at_once, context, _begin_worker, (slots,)) as processes:
            yield processes


def _begin_worker(slots: Any) -> None:
    """Prepare a process of the pool: a device of its own, no part in Ctrl-C, and an end when the search dies."""
    slot = slots.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(slot % torch.cuda.device_count())
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class _Ray:
    """Trials as Ray tasks, one accelerator each if there are any."""

    def __init__(self, threads: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError("`engine='ray'` needs Ray: pip install 'upchirp[ray]'") from error
        self._ray: Any = ray
        if not ray.is_initialized():
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
        accelerators = 1 if ray.cluster_resources().get("GPU") else 0
        self._options = {"num_cpus": threads, "num_gpus": accelerators, "max_retries": 0}

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "Future[Any]":
        """Run the function as a task."""
        future: Future[Any] = self._ray.remote(**self._options)(function).remote(*arguments).future()
        return future


class _Slurm:
    """Trials as SLURM jobs, through submitit; without SLURM it runs them as processes of this machine.

    Partition, account and time limit (a day without one) come from SBATCH_* variables of the environment, as sbatch
    reads them.
    """

    def __init__(self, folder: Path, threads: int, at_once: int) -> None:
        try:
            import submitit
        except ImportError as error:
            raise InputError("`engine='slurm'` needs submitit: pip install 'upchirp[slurm]'") from error
        self._executor: Any = submitit.AutoExecutor(folder=folder / "slurm")
        self._executor.update_parameters(
            timeout_min=_MINUTES, cpus_per_task=threads, gpus_per_node=1 if torch.cuda.is_available() else 0
        )
        self._waiting = ThreadPoolExecutor(at_once)

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "Future[Any]":
        """Run the function as a job; a thread waits for it."""
        return self._waiting.submit(_result_of, self._executor.submit(_told, function, *arguments))


def _told(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Exception | None]:
    """What a function returned or raised: submitit hands errors back as text."""
    try:
        return function(*arguments), None
    except Exception as error:
        return None, error


def _result_of(job: Any) -> Any:
    value, error = job.result()
    if error is not None:
        raise error
    return value
