"""Stands in for `python` where others start it: a fork of the server does what it is asked, and ends with this process.

Run by an interpreter without any packages, so that it starts at once.
"""

import array
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

SERVER = "PROCESS_SERVER"
"""The variable of the environment that holds the server's address."""


def order(address: str, words: list[str], environment: Mapping[str, str], streams: list[int], session: bool) -> Any:
    """Ask the server for a process; returns the connection, from which its number and its exit code can be read."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    asked = {"words": words, "environment": dict(environment), "session": session, "folder": os.getcwd()}  # noqa: PTH109
    line = json.dumps(asked).encode() + b"\n"
    sent = connection.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))])
    connection.sendall(line[sent:])
    return connection


def main() -> None:
    connection = order(os.environ[SERVER], sys.argv[1:], os.environ, [0, 1, 2], session=False)
    answers = connection.makefile()
    pid = int(answers.readline())
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, lambda received, frame: os.kill(pid, received))
    code = int(answers.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
