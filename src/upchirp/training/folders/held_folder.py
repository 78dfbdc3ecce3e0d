"""The folder that a run, a search or a comparison writes, kept from all others while it does."""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from upchirp.errors import InputError
from upchirp.folder_lock import locked
from upchirp.training.folders.run_folder import LOCK


@contextmanager
def held_folder(output: Path | None, name: str) -> Iterator[tuple[Path, list[str]]]:
    """Make a folder if it is missing, and keep other processes from writing into it.

    A folder that was made and in which nothing was put is deleted at the end. Processes that are forked meanwhile do
    not prolong the lock.

    Args:
        output: the folder; by default a new one under runs/.
        name: what the name of a new one begins with.

    Yields:
        The folder, and lines for the user.

    Raises:
        InputError: another process writes into it, or it cannot be made.
    """
    with ExitStack() as stack:
        # Here alone, as what is raised later is no failure of the lock.
        try:
            folder, made = _made(output, name)
            stack.callback(_delete_empty, made)
            note = stack.enter_context(locked(folder, LOCK))
        except OSError as error:
            raise InputError(
                f"cannot write {error.filename or output}: {error.strerror or error}; make room or give it rights, or "
                "choose another `output`"
            ) from error
        yield folder, [note] if note else []


def _made(output: Path | None, name: str) -> tuple[Path, list[Path]]:
    """A folder, and which folders were made for it, the innermost first."""
    if output is not None:
        if output.exists() and not output.is_dir():
            raise InputError(f"{output} is not an empty folder: choose another `output`")
        made = [path for path in (output, *output.parents) if not path.exists()]
        output.mkdir(parents=True, exist_ok=True)
        return output, made
    first = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    made = [] if first.parent.exists() else [first.parent]
    # By a number where two start in the same second, or the clock was set back.
    for path in chain([first], (first.with_name(f"{first.name}-{number}") for number in count(2))):
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path, [path, *made]
    raise AssertionError("numbers do not end")


def _delete_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
