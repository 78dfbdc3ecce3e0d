"""Latency and bandwidth of a ring all-reduce among the processes that torchrun started, for `scaling.py`.

NCCL on GPUs, else Gloo. Examples:
`torchrun --nproc-per-node 2 benchmarks/all_reduce.py`
`srun torchrun --nnodes 2 --nproc-per-node 8 ... benchmarks/all_reduce.py`
"""

import json
import os
import sys
import time
from collections.abc import Iterable
from statistics import median

import numpy as np
import torch
from torch import distributed

from upchirp.machine import hardware, versions

SIZES = (2**12, 2**16, 2**20, 2**23, 2**25)
"""Bytes."""
WARMUP, REPEATS = 3, 15


def fit(points: Iterable[tuple[float, float]], ranks: int) -> tuple[float, float]:
    """Seconds of one hop, and bytes per second of a link, from (bytes, seconds) of single all-reduces.

    An all-reduce of S bytes takes 2 (N - 1) (alpha + S / N / bandwidth).

    >>> [float(round(value, 6)) for value in fit([(4.0, 2 * (1 + 0.2)), (40.0, 2 * (1 + 2.0))], 2)]
    [1.0, 10.0]
    """
    sizes, seconds = np.array(list(points)).T
    columns = 2 * (ranks - 1) * np.column_stack([np.ones_like(sizes), sizes / ranks])
    # Relative errors count, or the largest size would decide alone.
    latency, inverse = np.linalg.lstsq(columns / seconds[:, None], np.ones_like(sizes))[0]
    return max(float(latency), 0.0), 1 / float(inverse)


def measure(size: int, device: torch.device) -> float:
    values = torch.zeros(size // 4, device=device)
    spent = []
    for _ in range(WARMUP + REPEATS):
        distributed.barrier()
        begun = time.perf_counter()
        distributed.all_reduce(values)
        values[0].item()  # waits for the device
        spent.append(time.perf_counter() - begun)
    return median(spent[WARMUP:])


def main() -> None:
    if "RANK" not in os.environ:
        sys.exit("start it in several processes: torchrun --nproc-per-node 2 benchmarks/all_reduce.py")
    on_gpu = torch.cuda.is_available()
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    points = [(size, measure(size, device)) for size in SIZES]
    distributed.destroy_process_group()
    if rank:
        return
    latency, bandwidth = fit(points, ranks)
    record = {
        "ranks": ranks,
        "latency_us": round(latency * 1e6, 1),
        "gbit": round(bandwidth * 8 / 1e9, 2),
        "seconds": {str(size): seconds for size, seconds in points},
        "n": REPEATS,
        "hardware": hardware(),
        "versions": versions(),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
