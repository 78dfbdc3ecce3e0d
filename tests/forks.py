"""Two ranks that are forks of this process, which has imported all they need: Gloo on the host."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

_SECONDS = 240


def fork_ranks(work: Callable[..., None], *args: Any) -> None:
    """Call `work(*args)` in two ranks; what one raises is raised, and what takes minutes fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = start_processes(_rank, (port, work, args), nprocs=2, join=False, start_method="fork")
    deadline = time.monotonic() + _SECONDS
    try:
        # It returns whenever one of them ends.
        while not ranks.join(timeout=1.0):
            assert time.monotonic() < deadline, f"the ranks have not ended in {_SECONDS} s"
    finally:
        for process in ranks.processes:
            process.kill()


def _rank(rank: int, port: int, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    from accelerate.state import AcceleratorState

    # A fork has none of the threads that its parent computed with, and would wait for them.
    torch.set_num_threads(1)
    # Accelerate keeps what the parent did.
    AcceleratorState._reset_state(reset_partial_state=True)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    work(*args)
    if dist.is_initialized():
        dist.destroy_process_group()
