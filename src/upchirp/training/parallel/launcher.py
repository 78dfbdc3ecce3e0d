"""The environment that a launcher, such as torchrun, gives each process. No torch in here."""

import os


def world_size() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Number of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first_process() -> bool:
    """Whether this is the process of the first rank, whether or not the ranks are open."""
    return os.environ.get("RANK", "0") == "0"
