"""Standard output and standard error that may go away while a command works on."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let what cannot be printed be lost: a reader that went away (`| head`, a closed terminal) ends no training.

    What is said of it is one line on standard error, if that is still there.
    """
    before = sys.stdout, sys.stderr
    errors = _Lasting(sys.stderr, None)
    sys.stdout, sys.stderr = _Lasting(sys.stdout, errors), errors
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


class _Lasting:
    """A stream that drops what it cannot write; everything else is the stream's own."""

    def __init__(self, stream: TextIO | None, errors: "_Lasting | None") -> None:
        self._stream = stream
        self._errors = errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            if self._stream is not None:
                self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, or drop it."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        stream, self._stream = self._stream, None
        # What it still holds is written when the process ends, and must not fail again.
        with suppress(OSError, AttributeError):
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, stream.fileno())  # type: ignore[union-attr]
            os.close(descriptor)
        if self._errors is not None:
            self._errors.write(
                f"upchirp: cannot write to standard output ({error.strerror}): going on without it; the log is in the "
                "output folder\n"
            )
            self._errors.flush()
