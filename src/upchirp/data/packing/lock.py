"""One packing at a time in one folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from upchirp.errors import InputError

LOCK = "pack.lock"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other processes from packing into a folder, by a lock on a file in it.

    The system drops the lock when its holder and the holder's workers have ended, however they ended, so a file that
    a kill leaves behind holds nobody up. Where the system or the disk knows no locks, nothing is kept apart.

    Args:
        root: the folder, which exists.

    Raises:
        InputError: another process holds the lock.
        OSError: the file cannot be made.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> with locked(root), locked(root):  # doctest: +ELLIPSIS
    ...     pass
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: another `upchirp pack` writes ...: wait until it ends, or choose another --output
    """
    if fcntl is None:
        yield
        return
    path = root / LOCK
    descriptor = _take(path)
    try:
        yield
    finally:
        # While the lock holds, so that it is nobody else's file.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path) -> int:
    """A descriptor of the file, locked."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(
                f"another `upchirp pack` writes {path.parent}: wait until it ends, or choose another --output"
            ) from None
        except OSError:
            # Some network disks know no locks; one packing at a time works there all the same.
            return descriptor
        if _is_at(descriptor, path):
            return descriptor
        # Its last holder deleted it after we had opened it.
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
