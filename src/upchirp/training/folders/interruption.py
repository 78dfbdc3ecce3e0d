"""Ctrl-C, SIGTERM and SIGHUP: end after the current step, with a checkpoint."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

_ECHO_SECONDS = {"SIGINT": 0.5, "SIGTERM": 2.0, "SIGHUP": 2.0}
"""The signals that ask a run to end, and for how long the same one counts as an echo of the first.

Wrappers hand on what the whole process group has got already: `timeout`, `tini -g` and shells within milliseconds,
`srun` and a closed terminal up to a second later. A person who presses Ctrl-C again has waited longer than half a
second, or presses it a third time."""


class Interrupted(Exception):
    """The run was asked to stop; its state is in a checkpoint.

    Args:
        signum: the signal that asked.
        folder: the run to go on with.
        step: optimizer steps done.
        go_on: how to go on, as the end of a message.
    """

    def __init__(self, signum: int, folder: Path, step: int, go_on: str) -> None:
        super().__init__(f"stopped after step {step}; {go_on}")
        self.signum = signum
        """The signal that asked."""
        self.folder = folder
        """The run to go on with."""
        self.step = step
        """Optimizer steps done."""
        self.go_on = go_on
        """How to go on, as the end of a message."""


class _Signalled(BaseException):
    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@contextmanager
def at_once(folder: Path, go_on: str) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Interrupted`, wherever they come: what was done before is in files.

    For the time between the trainings of a job, which collect signals by themselves. One that comes later than an echo,
    while what was stopped still ends, is dealt with as usual. Outside the main thread nothing is changed.

    Args:
        folder: the job's.
        go_on: how to go on, as the end of a message.

    Raises:
        Interrupted: one of the signals came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    stopped_at: list[float] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if not stopped_at:
            stopped_at.append(time.monotonic())
            raise _Signalled(signum)
        # What it ends is not to be cut short by its echoes.
        if time.monotonic() - stopped_at[0] > _ECHO_SECONDS[signal.Signals(signum).name]:
            signal.signal(signum, previous[signum])
            signal.raise_signal(signum)

    previous = {number: signal.signal(number, stop) for number in _to_catch()}
    try:
        yield
    except _Signalled as stopped:
        raise Interrupted(stopped.signum, folder, 0, go_on) from None
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _to_catch() -> list[int]:
    """The signals that are there, but for SIGHUP where it is ignored, as under `nohup`."""
    # Windows has no SIGHUP.
    numbers = {name: getattr(signal, name, None) for name in _ECHO_SECONDS}
    return [
        int(number)
        for name, number in numbers.items()
        if number is not None and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN)
    ]


@contextmanager
def collected_signals(*, patient: bool = False) -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of dying of them; the same one again ends the process as usual.

    Again means after its echoes (`_ECHO_SECONDS`). A patient process collects all of them: torchrun passes on what its
    ranks may have been sent already, and kills those that take too long. SIGHUP stays ignored where it was, as under
    `nohup`.

    Outside the main thread nothing can be collected, and the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
    first: dict[int, float] = {}

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        now = time.monotonic()
        elapsed = now - first.setdefault(signum, now)
        if not patient and elapsed > _ECHO_SECONDS[signal.Signals(signum).name]:
            signal.signal(signum, previous[signum])
            signal.raise_signal(signum)

    for number in _to_catch():
        previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
