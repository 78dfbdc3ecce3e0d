"""The machine and the versions: what a process may use, and the record of a measurement."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any


def usable_cores() -> int:
    """The cores that this process may use: with a scheduler or in a container often fewer than the machine has.

    Processes that torchrun started on one machine share them out.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def free_memory() -> int | None:
    """Bytes of main memory that are free for use, in a container those that it has left; None where nothing tells."""
    free: list[int] = []
    info = Path("/proc/meminfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
        free += [int(lines["MemAvailable"].split()[0]) * 1024] if "MemAvailable" in lines else []
    group = Path("/sys/fs/cgroup")
    try:
        most, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        free += [max(0, int(most) - int(used))] if most != "max" else []
    except (OSError, ValueError):
        pass
    return min(free, default=None)


def hardware() -> dict[str, Any]:
    """What the runs ran on."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    return {
        "cpu": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(memory, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """What the runs ran with."""
    import cv2

    packages = ("upchirp", "torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg")
    # OpenCV comes in packages of several names.
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "opencv": cv2.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
