"""The one exception type for bad input, and what its messages are made of: errors of others, and names, as a line."""

import errno
import os
from collections.abc import Sequence


class InputError(ValueError):
    """Input that the user can correct.

    The message is one line that says what is wrong and what to do. The command line prints it and exits with
    code 2; a library user catches it as a `ValueError`.

    >>> raise InputError("batch size is 0: choose 1 or more")
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: batch size is 0: choose 1 or more
    """


class DataFault(InputError):
    """A fault of the data that shows when an image is read; what was trained until then is worth keeping."""


def reason_of(error: Exception, path: str | os.PathLike[str]) -> str:
    """Why a file cannot be read, on one line, for a message that names it.

    >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.csv"), "a.csv")
    'there is no such file'
    >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.sha256"), "a.pt")
    'a.sha256: there is no such file'

    Args:
        error: that came of reading it.
        path: the file; another one that the error names is told.
    """
    if not isinstance(error, OSError) or not error.strerror:
        return one_line(error)
    reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
    named = error.filename
    return reason if named is None or os.fsdecode(named) == os.fspath(path) else f"{os.fsdecode(named)}: {reason}"


def cannot_write(path: str | os.PathLike[str], error: OSError) -> str:
    """What a job that goes on says where a file cannot be written, and what to do.

    >>> cannot_write("a.tar", OSError(28, "No space left on device"))
    'cannot write a.tar: No space left on device; make room and run the same command again'
    >>> cannot_write("a.tar", PermissionError(13, "Permission denied"))
    'cannot write a.tar: Permission denied; give it rights, or choose another `output`'
    """
    denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    advice = "give it rights, or choose another `output`" if denied else "make room and run the same command again"
    return f"cannot write {os.fsdecode(path)}: {error.strerror or error}; {advice}"


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its type if it says nothing.

    >>> one_line(ValueError("two   parts")), one_line(KeyError())
    ('two parts', 'KeyError')
    """
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    r"""The first line of what an error says; its type if it says nothing.

    >>> first_line(RuntimeError("no room\n  at frame 1")), first_line(KeyError())
    ('no room', 'KeyError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def some(names: Sequence[str]) -> str:
    """The first of some names, for messages.

    >>> some(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
