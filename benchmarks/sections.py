"""Sections of a benchmark, each with a time of its own at most; what they found is kept as it comes."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Keep = Callable[[], None]
"""Writes what was found so far."""
Section = Callable[[dict[str, Any], Keep], None]
"""Fills in its part of the record."""


class TimeIsUp(Exception):
    """A section has had its time."""


class Results:
    """What is found, on disk from the first figure on.

    Args:
        record: what is known before.
        path: where to write it; nowhere by default.
        seconds: for all sections together; one that begins later gets what is left.
    """

    def __init__(self, record: dict[str, Any], path: Path | None, seconds: float) -> None:
        self.record = record
        self._path = path
        self._end = time.monotonic() + seconds

    def keep(self) -> None:
        """Write everything that was found so far."""
        if self._path is not None:
            partial = self._path.with_name(self._path.name + ".partial")
            partial.write_text(json.dumps(self.record, indent=2), encoding="utf-8")
            partial.replace(self._path)

    def run(self, name: str, seconds: float, section: Section) -> None:
        """Let a section fill in its part of the record.

        Args:
            name: its part.
            seconds: its time, unless less is left.
            section: takes its part, and what keeps it.
        """
        found = self.record.setdefault(name, {})
        allowed = min(seconds, self._end - time.monotonic())
        begun = time.monotonic()
        try:
            with time_limit(allowed):
                section(found, self.keep)
        except TimeIsUp:
            found["stopped_after_s"] = round(allowed, 1)
        except Exception as error:
            # The others may go well, and a machine that is lent does not come back for them.
            found["failed"] = f"{type(error).__name__}: {error}"
        self.record.setdefault("section_seconds", {})[name] = round(time.monotonic() - begun, 1)
        self.keep()
        unfinished = found.get("failed") or ("time is up" if "stopped_after_s" in found else "done")
        print(f"{name}: {unfinished} after {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeIsUp` in what takes longer; no time at all raises it at once."""
    if seconds <= 0:
        raise TimeIsUp

    def end(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
