"""Files that appear under their names only when they are complete on disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all: a temporary name, the disk, then the name.

    A crash leaves at most a file whose name ends in `.tmp`; an error leaves nothing.

    Args:
        path: where the file shall be; one that is there stays until the new one is complete.

    Raises:
        OSError: it cannot be written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note"
    >>> with whole_file(path) as stream:
    ...     _ = stream.write(b"text")
    ...     path.exists()
    False
    >>> path.read_bytes()
    b'text'
    """
    # The number of the process keeps two writers of one file out of each other's way.
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        # Makes the new name durable as well.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
