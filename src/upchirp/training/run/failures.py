"""Failures from outside, such as a full disk, told in one line that says where to go on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upchirp.data.workers.deaths import LoaderFailure, loader_failures
from upchirp.errors import InputError, one_line
from upchirp.training.checkpoints import checkpoint
from upchirp.training.folders.run_folder import CHECKPOINTS


@contextmanager
def one_line_failures(folder: Path, go_on: str) -> Iterator[None]:
    """Turn a disk that fails or is full, and loader workers that die or stall, into one line; and too small a batch."""
    try:
        with loader_failures(), _quiet_board():
            yield
    except OSError as error:
        file = f" ({error.filename})" if error.filename else ""
        reason = f"{error.strerror or one_line(error)}{file}"
        raise InputError(f"the run in {folder} stopped: {reason}; {_where_to_go_on(folder, go_on)}") from error
    except LoaderFailure as error:
        raise InputError(f"{error}; {_where_to_go_on(folder, go_on)}") from error
    except ValueError as error:
        # As torch's batch norm says it.
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            "a batch norm gets one value of each channel, of a single image that is a single pixel by then, and can "
            "learn nothing from it: give a larger `batch_size` or `micro_batch`"
        ) from error


@contextmanager
def _quiet_board() -> Iterator[None]:
    """Keep TensorBoard's thread from printing what it raises in the main thread as well, at the next event."""
    previous = threading.excepthook

    def hook(error: threading.ExceptHookArgs) -> None:
        if not type(error.thread).__module__.startswith("tensorboard."):
            previous(error)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = previous


def _where_to_go_on(folder: Path, go_on: str) -> str:
    if not folder.is_dir():
        return f"there is no {folder} on this machine, so no checkpoint to go on from"
    kept = list(checkpoint.checkpoints(folder / CHECKPOINTS))
    if not kept:
        return "no checkpoint was written yet"
    return f"the last good checkpoint is {kept[-1]}: once that is mended, {go_on}"
