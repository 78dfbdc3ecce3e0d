"""Lines that a terminal can show, whatever names of files they hold."""

import json
import math
import re
import signal
import sys
from collections.abc import Mapping
from typing import Any

from upchirp.cli.flags import with_flags

# Control characters (a newline breaks the line, ESC the terminal), marks that turn the direction of text, and what
# Python makes of bytes that are not UTF-8, which a strict output refuses.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""A text in which nothing breaks the line, the terminal or the encoding: such characters are escaped.

    Everything that names files of the user is printed through this; JSON escapes them by itself.

    >>> print(printable("cat\n\x1b[2J\udcff \u00e9.jpg"))
    cat\n\x1b[2J\xff é.jpg
    """
    return _UNPRINTABLE.sub(_escaped, str(text))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON that every reader takes: numbers that are none, which JSON does not have, are null.

    >>> json_text({"loss": float("nan"), "sizes": (64, 96)})
    '{"loss": null, "sizes": [64, 96]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    # A byte that is not UTF-8, as the file system gave it.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else match[0].encode("unicode_escape").decode("ascii")


def print_note(message: str) -> None:
    """A line that the user should read, on standard error."""
    print(f"note: {printable(with_flags(message))}", file=sys.stderr)


def print_interruption(signum: int, told: object) -> int:
    """A line on what a signal stopped, on standard error, and the exit code that says so."""
    print(f"upchirp: {signal.Signals(signum).name}: {printable(told)}", file=sys.stderr)
    return 128 + signum
