"""Shared memory: what loader workers prepare comes from them through /dev/shm."""

import os
import shutil
from pathlib import Path

SHARED = Path("/dev/shm")
_USED_AT_MOST = 0.9


def room() -> int | None:
    """Bytes that this process may take of shared memory, of which torchrun's ranks on a machine have equal shares.

    None where there is no such folder.
    """
    try:
        free = shutil.disk_usage(SHARED).free
    except OSError:
        return None
    return int(_USED_AT_MOST * free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
