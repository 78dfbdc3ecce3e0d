"""The device to compute on, and torch's process-wide switches."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from upchirp.errors import InputError
from upchirp.training.parallel.device_name import check_device
from upchirp.training.parallel.launcher import local_rank, world_size


def choose_device(name: str | None) -> torch.device:
    """The named device, or the accelerator if there is one; of several, the one that is this rank's on its machine.

    One that is named by its number becomes the process's current one.

    >>> choose_device("cpu")
    device(type='cpu')

    Raises:
        InputError: no device, one that this machine has not, or one by its number for several ranks.
    """
    check_device(name)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    present = [kind for kind, there in available.items() if there]
    kind, _, number = (name or present[0]).partition(":")
    if kind not in present:
        raise InputError(f"this machine has no {kind} device: choose one of {', '.join(present)}")
    if number:
        return _by_number(int(number))
    if world_size() == 1:
        return torch.device(kind)
    if kind == "mps":
        raise InputError("several processes cannot train on mps: start one, or give `device='cpu'`")
    if kind == "cpu":
        return torch.device(kind)
    if local_rank() >= torch.cuda.device_count():
        raise InputError(
            f"this machine has {torch.cuda.device_count()} CUDA devices and runs more ranks: start one for each "
            "device (torchrun --nproc-per-node), or give `device='cpu'`"
        )
    torch.cuda.set_device(local_rank())
    return torch.device(kind, local_rank())


def _by_number(number: int) -> torch.device:
    if world_size() > 1:
        raise InputError(f"several ranks cannot share cuda:{number}: give `device='cuda'`, and each has one of its own")
    if number >= (count := torch.cuda.device_count()):
        last = f"cuda:0 to cuda:{count - 1}" if count > 1 else "cuda:0"
        raise InputError(f"this machine has no cuda:{number}: it has {last}")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def numerics(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Set the switches for a run, and set them back after it.

    cuDNN's measuring of its algorithms is off: it costs seconds at each change of bandwidth and gains next to nothing
    (benchmarks/results), and may choose otherwise in a run that goes on.
    """
    if deterministic and device.type == "cuda":
        # cuBLAS reads it once, when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    algorithms = torch.are_deterministic_algorithms_enabled()
    measuring = torch.backends.cudnn.benchmark
    precision = torch.get_float32_matmul_precision()
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = False
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms)
        torch.backends.cudnn.benchmark = measuring
        torch.set_float32_matmul_precision(precision)
