"""Writing shards in several processes, which end cleanly whatever happens to one of them or to their parent."""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

import cv2

from upchirp.data.packing.shard import ShardTask, write_shard
from upchirp.data.settings import check_workers
from upchirp.errors import InputError, cannot_write
from upchirp.machine import usable_cores

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 10.0


def processes_for(workers: int | None) -> int:
    """How many to work with: as many as asked for, by default one for each core.

    Raises:
        InputError: none, or more than can help, as `check_workers` has it.
    """
    workers = workers if workers is not None else usable_cores()
    if workers < 1:
        raise InputError(f"workers {workers}: give 1 or more")
    check_workers(workers)
    return workers


class _Ended(Exception):
    """The work is to end now."""


def write_shards(
    tasks: Sequence[ShardTask], *, workers: int, root: str = "", progress: Callable[[int], None] | None = None
) -> None:
    """Write shards in parallel, one process to a shard.

    When one of them fails, or this process is interrupted or killed, all end after the image that they are at, and
    shards that are not complete are dropped.

    Args:
        tasks: the shards.
        workers: number of processes, 1 or more.
        root: see `write_shard`.
        progress: called several times a second with the number of images that are done.

    Raises:
        InputError: a shard cannot be written, an image's disk failed, or a process was killed.
    """
    if not tasks:
        return
    context = multiprocessing.get_context()
    following = context.Value("q", 0)
    stop = context.RawValue("b", 0)
    done = context.RawArray("q", min(workers, len(tasks)))
    started = []
    try:
        for slot in range(len(done)):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_work, args=(tasks, root, following, stop, done, slot, sender), daemon=True
            )
            process.start()
            # This process's copy; the worker's own closes with it.
            sender.close()
            started.append((process, receiver))
        running = list(started)
        while running:
            wait([process.sentinel for process, _ in running], timeout=_POLL_SECONDS)
            if progress is not None:
                progress(sum(done))
            for process, receiver in [pair for pair in running if not pair[0].is_alive()]:
                running.remove((process, receiver))
                if process.exitcode:
                    raise _failure(process.exitcode, receiver)
    finally:
        stop.value = 1
        for process, receiver in started:
            process.join(_GRACE_SECONDS)
            if process.is_alive():
                process.terminate()
                process.join()
            receiver.close()


def _failure(exitcode: int, receiver: Any) -> Exception:
    try:
        kind, text = receiver.recv()
    except EOFError:
        return InputError(
            f"a packing process was killed (signal {-exitcode}, perhaps for memory): run the same command again, "
            "with fewer `workers`"
        )
    return InputError(text) if kind == "input" else RuntimeError(f"a packing process failed:\n{text}")


def _work(tasks: Sequence[ShardTask], root: str, following: Any, stop: Any, done: Any, slot: int, sender: Any) -> None:
    # Ctrl-C reaches the whole process group: the parent says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    # Not the parent of `os.getppid`, which may be a fork server.
    parent = multiprocessing.parent_process()

    def step() -> None:
        done[slot] += 1
        if stop.value or parent is None or not parent.is_alive():
            raise _Ended

    while True:
        with following.get_lock():
            number = following.value
            following.value += 1
        if number >= len(tasks):
            return
        path = tasks[number].path
        try:
            write_shard(tasks[number], step, root)
        except _Ended:
            return
        except InputError as error:
            sender.send(("input", str(error)))
            raise SystemExit(1) from None
        except OSError as error:
            sender.send(("input", cannot_write(path, error)))
            raise SystemExit(1) from None
        except Exception:
            sender.send(("bug", traceback.format_exc()))
            raise SystemExit(1) from None
