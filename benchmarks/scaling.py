"""A model of the step time against the number of ranks, and of what early large batches and replay give back.

A step on one rank takes `fixed + rows x seconds per image` of compute, beside which the loader prepares the fresh rows
of the next one; a ring all-reduce (alpha-beta model) of the gradients, bucket by bucket as DDP sends them, hides under a
part of the compute. With a fixed global batch more ranks mean fewer rows each, and at a small bandwidth nearly no
compute for the all-reduce to hide under: Section 5.3's bottleneck. Without a file of measured speeds the compute is read
off the paper's tables. Examples:
`python benchmarks/scaling.py --json`
`python benchmarks/scaling.py --compute gpu.json --model deit_small_patch16_224 --workers 12 --gbit 400 --latency-us 10`
`torchrun --nproc-per-node 2 benchmarks/scaling.py --measure-network`
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from upchirp import Plan, constant, plan, preset
from upchirp.compare import hardware, versions

RESULTS = Path(__file__).parent / "results"
BUCKET_BYTES = 25 * 2**20
"""What DistributedDataParallel reduces at once by default."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a step costs one rank without the others."""

    name: str
    parameters: int
    seconds_per_image: Mapping[int, float]
    """Forward, backward and all else that grows with the rows, by bandwidth."""
    fixed_seconds: float = 0.0
    """What a step takes whatever its rows: launches, optimizer."""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What prepares the images."""

    images_per_second: Mapping[int, float]
    """Of one worker, by bandwidth."""
    workers: int
    """For each rank."""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Network:
    """What joins the ranks."""

    latency: float
    """Seconds for one hop of the ring (alpha)."""
    bandwidth: float
    """Bytes per second from one rank to the next (1 / beta)."""
    overlap: float = 0.5
    """Share of the compute under which communication hides: backward is about two thirds, its first bucket waits."""


@dataclass(frozen=True)
class StepTime:
    """Where a step's time goes, seconds."""

    compute: float
    exposed: float
    """All-reduce that nothing hides."""
    loader: float

    @property
    def total(self) -> float:
        """Loader and device work side by side; the slower one counts."""
        return max(self.compute + self.exposed, self.loader)

    @property
    def bound_by(self) -> str:
        """What one would have to speed up."""
        if self.loader > self.compute + self.exposed:
            return "loader"
        return "compute" if self.compute >= self.exposed else "all-reduce"


def all_reduce_seconds(size: float, ranks: int, network: Network, bucket: float = BUCKET_BYTES) -> float:
    """Ring all-reduce of `size` bytes: 2 (N - 1) hops for each bucket, 2 (N - 1) / N of the bytes through each link.

    >>> all_reduce_seconds(100.0, 1, Network(latency=1.0, bandwidth=1.0))
    0.0
    >>> all_reduce_seconds(100.0, 2, Network(latency=1.0, bandwidth=10.0), bucket=50.0)
    14.0
    """
    buckets = -(-size // bucket)
    return 2 * (ranks - 1) * (buckets * network.latency + size / ranks / network.bandwidth)


def step_time(
    work: Workload,
    loading: Loading | None,
    network: Network,
    *,
    ranks: int,
    bandwidth: int,
    batch_size: int,
    fresh: float = 1.0,
) -> StepTime:
    """The time of one optimizer step; `fresh` is the share of its images that the loader prepares."""
    rows = batch_size / ranks
    compute = work.fixed_seconds + rows * work.seconds_per_image[bandwidth]
    reduce = all_reduce_seconds(4.0 * work.parameters, ranks, network)
    loader = 0.0
    if loading is not None:
        loader = fresh * rows / (loading.workers * loading.images_per_second[bandwidth])
    return StepTime(compute, max(0.0, reduce - network.overlap * compute), loader)


def run_seconds(run: Plan, work: Workload, loading: Loading | None, network: Network, ranks: int) -> float:
    """The time of all steps of a plan."""
    return sum(
        stage.steps
        * step_time(
            work,
            loading,
            network,
            ranks=ranks,
            bandwidth=stage.bandwidth,
            batch_size=stage.batch_size,
            fresh=stage.fresh_samples / stage.samples,
        ).total
        for stage in run.stages
    )


def fit_compute(points: Iterable[Mapping[str, float]]) -> tuple[float, dict[int, float]]:
    """Fixed seconds and seconds per image by bandwidth, by least squares over measured (bandwidth, rows, seconds).

    >>> fit_compute([{"bandwidth": 96, "rows": rows, "seconds": 0.5 + 0.1 * rows} for rows in (1, 2, 3)])
    (0.5, {96: 0.1})
    """
    points = list(points)
    sides = sorted({int(point["bandwidth"]) for point in points})
    columns = [[1.0, *(point["rows"] * (point["bandwidth"] == side) for side in sides)] for point in points]
    # Relative errors count, or the largest steps would decide alone.
    weights = 1 / np.array([point["seconds"] for point in points])
    solved = np.linalg.lstsq(np.array(columns) * weights[:, None], np.ones(len(points)))[0]
    fixed, *slopes = (round(float(value), 9) for value in solved)
    return max(fixed, 0.0), dict(zip(sides, slopes, strict=True))


def fit_network(points: Iterable[tuple[float, float]], ranks: int) -> Network:
    """Latency and bandwidth from measured (bytes, seconds) of single all-reduces."""
    sizes, seconds = np.array(list(points)).T
    columns = 2 * (ranks - 1) * np.column_stack([np.ones_like(sizes), sizes / ranks])
    latency, inverse = np.linalg.lstsq(columns / seconds[:, None], np.ones_like(sizes))[0]
    return Network(latency=max(float(latency), 0.0), bandwidth=1 / float(inverse))


def solve(function: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a falling function meets a target, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > target else (low, middle)
    return (low + high) / 2


# Table 12: CSWin-Base's baseline of 150 epochs of ImageNet-22K took 126.9 GPU days on RTX 3090s. The time of an image
# at other bandwidths goes with its pixels, as the paper's speed-ups of 2.0 and 3.0 on 16 GPUs say.
_IMAGENET_22K, _BASELINE_22K = 14_197_122, 150
CSWIN_BASE = Workload(
    name="CSWin-Base on RTX 3090",
    parameters=77_382_184,
    seconds_per_image={
        side: 126.9 * 86_400 / (_BASELINE_22K * _IMAGENET_22K) * (side / 224) ** 2 for side in (96, 160, 224)
    },
    source="Table 12: 126.9 GPU days for 150 epochs of ImageNet-22K; other bandwidths by pixels",
)
# Table 14: a 3090 takes 5,329 images/s of DeiT-Small at its peak, the first bandwidth.
DEIT_SMALL = Workload(
    name="DeiT-Small on RTX 3090",
    parameters=22_050_664,
    seconds_per_image={side: (side / 96) ** 2 / 5329 for side in (96, 160, 224)},
    source="Table 14: 5,329 images/s at 96 px; other bandwidths by pixels",
)
TABLE_13 = {"half": {16: (2.0, 2.0), 64: (1.4, 2.0)}, "third": {16: (3.0, 3.0), 64: (2.1, 2.9)}}
"""Budget of EfficientTrain++: ranks: CSWin-Base's speed-up without and with early large batch."""
