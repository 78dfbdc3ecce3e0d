"""One process at a time writes into a folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from upchirp.errors import InputError


@contextmanager
def locked(root: Path, name: str, *, shared_with_children: bool = False) -> Iterator[str | None]:
    """Keep other processes from writing into a folder, by a lock on a file in it.

    The system drops the lock when its holder has ended, however it ended, so a file that a kill leaves behind holds
    nobody up. Linux passes these locks on to the server of an NFS disk, which sees the machines that use it; Lustre
    does so where it is mounted with `flock`. Where the system or the disk knows no locks, nothing is kept apart.

    Args:
        root: the folder, which exists.
        name: of the file.
        shared_with_children: whether processes that are forked while the lock holds keep it too, because they write
            into the folder and may outlive the holder.

    Yields:
        Nothing, or a line for the user that the disk knows no locks.

    Raises:
        InputError: another process holds the lock; it is named.
        OSError: the file cannot be made.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> with locked(root, "lock"), locked(root, "lock"):  # doctest: +ELLIPSIS
    ...     pass
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: ... is in use by process ... on ...: wait until that ends, or choose another `output`
    """
    if fcntl is None:
        yield None
        return
    path = root / name
    descriptor, holds = _take(path)
    try:
        if not shared_with_children:
            _CLOSED_BY_CHILDREN.add(descriptor)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield None if holds else f"the disk under {root} knows no locks: start nothing else with the same `output`"
    finally:
        _CLOSED_BY_CHILDREN.discard(descriptor)
        # While the lock holds, so that it is nobody else's file; a folder that became read-only may keep it.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


_CLOSED_BY_CHILDREN: set[int] = set()
"""Descriptors whose locks end with this process, and not with the last of those that it forked."""


def _close_in_child() -> None:
    for descriptor in _CLOSED_BY_CHILDREN:
        os.close(descriptor)
    _CLOSED_BY_CHILDREN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _take(path: Path) -> tuple[int, bool]:
    """A descriptor of the file, and whether it is locked: not if the disk knows no locks."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise InputError(
                f"{path.parent} is in use by {holder}: wait until that ends, or choose another `output`"
            ) from None
        except OSError:
            return descriptor, False
        if _is_at(descriptor, path):
            return descriptor, True
        # Its last holder deleted it after we had opened it.
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.read(descriptor, 4096))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, LookupError, TypeError):
        # It has written nothing yet.
        return "another process"


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
