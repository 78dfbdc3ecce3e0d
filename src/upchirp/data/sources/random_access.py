"""Files that several processes read at any place, and what each process keeps of them."""

import os
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class OwnCache(Generic[Key, Value]):
    """The last few values of a function, for this process alone: what is pickled with it begins without any.

    >>> import pickle
    >>> lengths = OwnCache(len, 2)
    >>> lengths("cat"), pickle.loads(pickle.dumps(lengths))("shark")
    (3, 5)

    Args:
        function: of one argument.
        most: values that are kept.
    """

    def __init__(self, function: Callable[[Key], Value], most: int) -> None:
        self._made_of = (function, most)
        self._kept = lru_cache(most)(function)

    def __call__(self, key: Key) -> Value:
        """The value, as it was before if it is kept."""
        return self._kept(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return OwnCache, self._made_of


class OpenFile:
    """A file open for reading at any place; it closes when nobody holds it any more, so a cache may drop it.

    It is safe to fork: no position moves that processes would share.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be opened, or (when it is read) not read.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes at an offset; fewer where the file ends."""
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length and (more := os.pread(self._descriptor, length - len(data), offset + len(data))):
            # One call may return less than it was asked for, past 2 GB or on a network disk.
            data += more
        return data

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Where opening failed there is none; when Python ends, modules may be gone before their objects.
        if hasattr(self, "_descriptor"):
            close(self._descriptor)
