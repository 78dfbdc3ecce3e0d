"""Starts Python programs as forks of a process that has imported what a training needs; see `tests.processes`."""

import array
import atexit
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

PLANNING = ("upchirp.cli.plan", "upchirp.training.jobs.pricing")
"""What `upchirp plan` imports."""
PRELOADED = (
    "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.run", "torch.utils.tensorboard", "matplotlib.figure",
    "upchirp.cli.train", "upchirp.search.runner", "upchirp.compare.comparison", "upchirp.reports.run_html",
)  # fmt: skip
SMALL = (
    "--model", "test_vit", "--model-kwargs", "depth=2", "--final-size", "64", "--recipe", "light", "--epochs", "2",
    "--batch-size", "4", "--evaluations", "1", "--workers", "0", "--device", "cpu", "--no-report",
)  # fmt: skip
"""A training of a few steps on eight images, of the model that most programs train."""


def warm_up() -> None:
    """Train once: what a process imports, or finds out of a model, when it first trains, forks then know."""
    import torch
    from PIL import Image

    from upchirp.cli import main

    drawn = torch.get_rng_state()
    with tempfile.TemporaryDirectory() as root, redirect_stdout(io.StringIO()):
        for split in ("train", "val"):
            for index in range(8):
                path = Path(root, split, str(index % 2), f"{index}.jpg")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (48, 40)).save(path)
        assert main(["train", "--data", root, *SMALL, "--output", f"{root}/run"]) == 0
    torch.set_rng_state(drawn)


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


def leave(code: int) -> None:
    """End as an interpreter does, but take nothing apart: that would copy all the memory that a fork shares."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    for module in PLANNING:
        __import__(module)
    planning = sorted(module for module in sys.modules if "." not in module)
    for module in PRELOADED:
        __import__(module)
    # As in the tests' own process, nothing waits for the disk.
    os.fsync = os.fstat
    # Forks leave alone what was there before, and share its memory.
    warm_up()
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        print(json.dumps(planning), flush=True)
        taken = serve(listener)
    # Here, not in a function of the server: what else a program raises ends it as it ends an interpreter.
    if taken is not None:
        become(*taken)
        try:
            run(taken[0]["words"])
        except SystemExit as end:
            if not isinstance(end.code, int | None):
                raise
            leave(end.code or 0)
        leave(0)
