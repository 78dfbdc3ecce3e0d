"""The command line, one file for each command. It parses, calls and prints; it decides nothing."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 128 + signal after an interruption."""
    try:
        # In here, so that Ctrl-C gets one line from the first import on.
        from upchirp.cli.commands import run

        return run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        print("upchirp: interrupted", file=sys.stderr)
        return 130
