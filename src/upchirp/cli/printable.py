"""Names of files as one line of a terminal can show them."""

import re
import sys

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


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    # A byte that is not UTF-8, as the file system gave it.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else match[0].encode("unicode_escape").decode("ascii")


def print_note(message: str) -> None:
    """A line that the user should read, on standard error."""
    print(f"note: {printable(message)}", file=sys.stderr)
