"""Starts Python programs as forks of a process that has imported what a training needs; see `tests.processes`."""

import array
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any

PLANNING = ("upchirp.cli.plan", "upchirp.training.jobs.pricing")
"""What `upchirp plan` imports."""
PRELOADED = (
    "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.run", "torch.utils.tensorboard", "matplotlib.figure",
    "upchirp.cli.train", "upchirp.search.runner", "upchirp.compare.comparison", "upchirp.reports.run_html",
)  # fmt: skip


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """An order, a line of JSON, and the standard streams that come with it."""
    descriptors = array.array("i")
    text, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_LEN(3 * descriptors.itemsize))
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    return json.loads(text), descriptors.tolist()


def serve(listener: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Fork for each order; returns it in the fork, and None in the end.

    Who ordered is told the number of the process, and in the end its exit code. When they are gone it is killed.
    """
    running: dict[int, socket.socket] = {}
    while True:
        ready = select.select([sys.stdin, listener, *running.values()], [], [], 0.01 if running else None)[0]
        if sys.stdin in ready:
            return None
        if listener in ready:
            connection = listener.accept()[0]
            order, streams = receive(connection)
            pid = os.fork()
            if not pid:
                for held in (listener, connection, *running.values()):
                    held.close()
                return order, streams
            for stream in streams:
                os.close(stream)
            running[pid] = connection
            tell(connection, pid)
        for pid, connection in list(running.items()):
            if connection in ready:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0 if connection in ready else os.WNOHANG)
            if ended:
                tell(connection, os.waitstatus_to_exitcode(status))
                running.pop(pid).close()


def tell(connection: socket.socket, number: int) -> None:
    try:
        connection.sendall(f"{number}\n".encode())
    except BrokenPipeError:
        return


def become(order: dict[str, Any], streams: list[int]) -> None:
    """Take over what a new process is given: environment, folder, standard streams and session."""
    if order["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    # The server's own streams must not be closed with the fork's.
    sys.stdin, sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY)), os.fdopen(1, "w", closefd=False)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)


def run(words: list[str]) -> None:
    """What `python` does with these arguments."""
    if words[0] == "-u":
        words = words[1:]
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
    for module in PLANNING:
        __import__(module)
    planning = sorted(module for module in sys.modules if "." not in module)
    for module in PRELOADED:
        __import__(module)
    # Forks leave alone what was there before, and share its memory.
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        print(json.dumps(planning), flush=True)
        taken = serve(listener)
    # Here, not in a function of the server: a fork ends as an interpreter does.
    if taken is not None:
        become(*taken)
        run(taken[0]["words"])
