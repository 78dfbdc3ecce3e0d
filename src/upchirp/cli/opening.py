"""The import of what takes seconds, after the words of a command are known to be right."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console


@contextmanager
def opening(console: Console) -> Iterator[None]:
    """Say that the libraries inside are imported, and let Ctrl-C end the process at once meanwhile.

    Nothing can be lost yet, and an exception in the middle of an import would end in whatever that makes of it.
    """
    if "torch" in sys.modules:
        yield
        return
    if not console.quiet:
        what = "loading PyTorch and timm"
        print(what, end="\r" if console.is_terminal else "\n", file=console.file, flush=True)
    # Not in another thread, and not where it is ignored, as in a background job.
    ends = (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
        and threading.current_thread() is threading.main_thread()
    )
    if ends:
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        if ends:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if console.is_terminal and not console.quiet:
            print("\x1b[2K", end="", file=console.file, flush=True)


def _end(signum: int, frame: FrameType | None) -> None:
    os.write(2, b"upchirp: interrupted\n")
    os._exit(128 + signum)
