"""Two ranks that are forks of this process, which has imported all they need: Gloo on the host."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch.multiprocessing import start_processes


def fork_ranks(work: Callable[..., None], *args: Any) -> None:
    """Call `work(*args)` in two ranks; what one raises is raised."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(_rank, (port, work, args), nprocs=2, start_method="fork")


def _rank(rank: int, port: int, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    from accelerate.state import AcceleratorState

    # Accelerate keeps what the parent did.
    AcceleratorState._reset_state(reset_partial_state=True)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    work(*args)
    if dist.is_initialized():
        dist.destroy_process_group()
