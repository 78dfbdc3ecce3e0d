"""Starts Python programs as forks of a process that has imported what a training needs; see `tests.processes`."""

import fcntl
import json
import os
import runpy
import select
import sys
from pathlib import Path
from typing import Any

PRELOADED = (
    "torch._dynamo", "torch.distributed.fsdp", "torch.utils.tensorboard", "matplotlib.figure",
    "upchirp.cli.train", "upchirp.search.runner", "upchirp.compare.comparison", "upchirp.reports.run_html",
)  # fmt: skip


def serve() -> dict[str, Any] | None:
    """Fork for each order, a line of JSON; returns it in the fork, and None in the end."""
    running: dict[int, Path] = {}
    while True:
        if select.select([sys.stdin], [], [], 0.01 if running else None)[0]:
            line = sys.stdin.readline()
            if not line:
                return None
            order: dict[str, Any] = json.loads(line)
            pid = os.fork()
            if not pid:
                return order
            running[pid] = Path(order["ended"])
            print(pid, flush=True)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                path = running.pop(pid)
                path.with_suffix(".part").write_text(str(os.waitstatus_to_exitcode(status)))
                path.with_suffix(".part").replace(path)


def become(order: dict[str, Any]) -> None:
    """Take over what a new process is given: environment, folder, standard streams and session."""
    if order["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    # The server's own streams must not be closed with the fork's.
    sys.stdin, sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY)), os.fdopen(1, "w", closefd=False)
    os.dup2(sys.stdin.fileno(), 0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for stream, path in ((1, order["stdout"]), (2, order["stderr"])):
        file = os.open(path, flags)
        # Held by all that inherit it: it is free when the last of them has ended.
        fcntl.flock(file, fcntl.LOCK_EX)
        os.dup2(file, stream)
        os.close(file)


def run(words: list[str]) -> None:
    """What `python` does with these arguments."""
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    for module in PRELOADED:
        __import__(module)
    taken = serve()
    # Here, not in a function of the server: a fork ends as an interpreter does.
    if taken is not None:
        become(taken)
        run(taken["words"])
