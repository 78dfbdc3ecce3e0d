"""Processes that need no seconds to start.

A process that imports torch and timm takes five seconds of a core, most often longer than what a test lets it do. Here
they are imported once, by a server that forks for each process. A fork runs its program as `python` does, with streams,
an environment and a process group of its own. What imports themselves do is for `subprocess` to test.
"""

import atexit
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests import process_client
from torch.distributed import TCPStore

SERVER, CLIENT = (Path(__file__).with_name(f"process_{name}.py") for name in ("server", "client"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
POLL_SECONDS = 0.01


class Done(NamedTuple):
    """What a process ended with."""

    returncode: int
    stdout: str
    stderr: str


class Process:
    """A started process, with what is needed of `subprocess.Popen`."""

    def __init__(self, connection: socket.socket, folder: Path) -> None:
        self._answers = connection.makefile()
        connection.close()
        self.pid = int(self._answers.readline())
        self._folder = folder
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, minus the signal if one ended it; None while it runs."""
        if self._code is None and select.select([self._answers], [], [], 0)[0]:
            self._code = int(self._answers.readline())
            self._answers.close()
        return self._code

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def finish(self, timeout: float = 240) -> Done:
        """Wait for its end and that of its children; if that takes longer it is killed, and the test fails."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None or self._is_held():
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise AssertionError(f"process {self.pid} has not ended in {timeout} s: {self._read('stderr')}")
            time.sleep(POLL_SECONDS)
        return Done(code, self._read("stdout"), self._read("stderr"))

    def _is_held(self) -> bool:
        """Whether a child is left, which has its streams."""
        with (self._folder / "stderr").open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _read(self, name: str) -> str:
        return (self._folder / name).read_text()


@cache
def _server() -> frozenset[str]:
    """Start it, once; returns the packages that it had imported when it could have planned."""
    server = subprocess.Popen(
        [sys.executable, str(SERVER), str(_folder() / "server")],
        env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    # It ends when nobody can write to it.
    atexit.register(server.communicate)
    assert server.stdout is not None
    # It listens when it has told.
    return frozenset(json.loads(server.stdout.readline()))


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="processes-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def imported_for_a_plan() -> frozenset[str]:
    """The packages that a process has imported which is about to plan."""
    return _server()


def address() -> str:
    """Where the server is to be found; it runs."""
    _server()
    return str(_folder() / "server")


@cache
def python() -> str:
    """A program that takes the place of `python` where others start it, given `with_server()` as its environment."""
    program = _folder() / "python"
    program.write_text(f"#!{sys.executable} -SE\n{CLIENT.read_text()}")
    program.chmod(0o755)
    return str(program)


def with_server(**more: str) -> dict[str, str]:
    """The environment in which `python()` finds the server, and in which torchrun starts ranks by it."""
    return {**ENVIRONMENT, process_client.SERVER: address(), "PYTHON_EXEC": python(), **more}


def start(*words: object, environment: Mapping[str, str] = ENVIRONMENT, session: bool = False) -> Process:
    """Start `python WORDS`: `-m module`, `-c program` or a file, and its arguments.

    Args:
        words: the arguments of `python`.
        environment: all of it.
        session: whether it leads a session, and so a process group, of its own.
    """
    at = address()
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    with ExitStack() as stack:
        streams = [stack.enter_context((folder / name).open("w")) for name in ("stdout", "stderr")]
        for stream in streams:
            # Held by all that inherit it: it is free when the last of them has ended.
            fcntl.flock(stream, fcntl.LOCK_EX)
        nothing = stack.enter_context(Path(os.devnull).open())
        given = [stream.fileno() for stream in (nothing, *streams)]
        connection = process_client.order(at, [str(word) for word in words], environment, given, session)
        # Answered when it was forked, with streams of its own.
        return Process(connection, folder)


def finish_ranks(count: int, *words: object, timeout: float = 240) -> Done:
    """Run so many ranks of a program to their ends, as torchrun does.

    They meet in a store that outlives them; when one fails, the others are terminated, and its code is the one told.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    together = {
        "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_WORLD_SIZE": 1, "TORCHELASTIC_USE_AGENT_STORE": True,
        "MASTER_ADDR": store.host, "MASTER_PORT": store.port,
    }  # fmt: skip
    ranks = [
        start(
            *words,
            environment={
                **ENVIRONMENT,
                **{name: str(value) for name, value in {**together, "RANK": rank, "LOCAL_RANK": rank}.items()},
            },
        )
        for rank in range(count)
    ]
    deadline = time.monotonic() + timeout
    failed = 0
    while any(rank.poll() is None for rank in ranks) and time.monotonic() < deadline:
        if failed := next((code for rank in ranks if (code := rank.poll())), 0):
            for rank in ranks:
                rank.send_signal(signal.SIGTERM)
            break
        time.sleep(POLL_SECONDS)
    ends = [rank.finish(max(30, deadline - time.monotonic())) for rank in ranks]
    code = failed or next((end.returncode for end in ends if end.returncode), 0)
    return Done(code, *("".join(parts) for parts in list(zip(*ends, strict=True))[1:]))


def call_in_ranks(count: int, work: Callable[..., None], *args: object) -> None:
    """Call a function of a test's module in so many ranks, with paths and the like as text."""
    given = tuple(map(str, args))
    program = f"""
import torch.distributed as dist
from {work.__module__} import {work.__name__} as work
work(*{given!r})
if dist.is_initialized():
    dist.destroy_process_group()
"""
    done = finish_ranks(count, "-c", program)
    assert done.returncode == 0, done.stderr
