"""Ctrl-C and SIGTERM: end after the current step, with a checkpoint."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop; its state is in a checkpoint."""

    def __init__(self, signum: int, folder: Path, step: int) -> None:
        super().__init__(f"stopped after step {step}; go on with: --resume auto --output {folder}")
        self.signum = signum
        """The signal that asked."""
        self.folder = folder
        """The run to go on with."""
        self.step = step
        """Optimizer steps done."""


@contextmanager
def collected_signals(*, patient: bool = False) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one ends the process as usual.

    A patient process collects all of them: torchrun passes on what its ranks may have been sent already, and kills
    those that take too long.

    Outside the main thread nothing can be collected, and the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if not patient:
            signal.signal(signum, previous[signum])

    for signum in (int(signal.SIGINT), int(signal.SIGTERM)):
        previous[signum] = signal.signal(signum, note)
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
