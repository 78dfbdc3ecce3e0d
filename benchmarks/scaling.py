"""A model of the step time against the number of ranks, and of what early large batches and replay give back.

A step on one rank takes `fixed + rows x seconds per image` of compute, beside which the loader prepares the fresh rows
of the next one; a ring all-reduce (alpha-beta model) of the gradients, bucket by bucket as DDP sends them, hides under
a part of the compute. With a fixed global batch more ranks mean fewer rows each, and at a small bandwidth nearly no
compute for the all-reduce to hide under: Section 5.3's bottleneck. Without a file of measured speeds the compute is
read off the paper's tables; `all_reduce.py` measures a network. Examples:
`python benchmarks/scaling.py --json`
`python benchmarks/scaling.py --compute gpu.json --model deit_small_patch16_224 --workers 12 --gbit 400 --latency-us 10`
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from upchirp import Plan, Stage, constant, plan, preset
from upchirp.compare import versions

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


def stage_time(stage: Stage, work: Workload, loading: Loading | None, network: Network, ranks: int) -> StepTime:
    """The time of one of a stage's steps."""
    return step_time(
        work,
        loading,
        network,
        ranks=ranks,
        bandwidth=stage.bandwidth,
        batch_size=stage.batch_size,
        fresh=stage.fresh_samples / stage.samples,
    )


def run_seconds(run: Plan, work: Workload, loading: Loading | None, network: Network, ranks: int) -> float:
    """The time of all steps of a plan."""
    return sum(stage.steps * stage_time(stage, work, loading, network, ranks).total for stage in run.stages)


def fit_compute(points: Iterable[Mapping[str, float]]) -> tuple[float, dict[int, float]]:
    """Fixed seconds and seconds per image by bandwidth, by least squares over measured (bandwidth, rows, seconds).

    >>> fit_compute([{"bandwidth": 96, "rows": rows, "seconds": 0.5 + 0.1 * rows} for rows in (1, 2, 3)])
    (0.5, {96: 0.1})

    Nothing costs less than nothing: where larger batches cost more an image, all goes to the images.

    >>> fit_compute([{"bandwidth": 96, "rows": rows, "seconds": 0.1 * rows**1.5} for rows in (1, 2, 4)])[0]
    0.0
    """
    points = list(points)
    sides = sorted({int(point["bandwidth"]) for point in points})
    columns = [[1.0, *(point["rows"] * (point["bandwidth"] == side) for side in sides)] for point in points]
    # Relative errors count, or the largest steps would decide alone.
    weights = 1 / np.array([point["seconds"] for point in points])
    scaled = np.array(columns) * weights[:, None]
    fixed, *slopes = np.linalg.lstsq(scaled, np.ones(len(points)))[0]
    if fixed < 0:
        fixed, slopes = 0.0, np.linalg.lstsq(scaled[:, 1:], np.ones(len(points)))[0]
    return round(float(fixed), 9), {side: round(float(slope), 9) for side, slope in zip(sides, slopes, strict=True)}


def solve(function: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a falling function meets a target, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > target else (low, middle)
    return (low + high) / 2


SIDES = (96, 160, 224)
# Table 12: CSWin-Base's baseline of 150 epochs of ImageNet-22K took 126.9 GPU days on RTX 3090s. The time of an image
# at other bandwidths goes with its pixels, as the paper's speed-ups of 2.0 and 3.0 on 16 GPUs say.
_IMAGENET_22K, _BASELINE_22K = 14_197_122, 150
CSWIN_BASE = Workload(
    name="CSWin-Base on RTX 3090",
    parameters=77_382_184,
    seconds_per_image={side: 126.9 * 86_400 / (_BASELINE_22K * _IMAGENET_22K) * (side / 224) ** 2 for side in SIDES},
    source="Table 12: 126.9 GPU days for 150 epochs of ImageNet-22K; other bandwidths by pixels",
)
# Table 14: a 3090 takes 5,329 images/s of DeiT-Small at its peak, the first bandwidth.
DEIT_SMALL = Workload(
    name="DeiT-Small on RTX 3090",
    parameters=22_050_664,
    seconds_per_image={side: (side / 96) ** 2 / 5329 for side in SIDES},
    source="Table 14: 5,329 images/s at 96 px; other bandwidths by pixels",
)
TABLE_13 = {"half": {16: (2.0, 2.0), 64: (1.4, 2.0)}, "third": {16: (3.0, 3.0), 64: (2.1, 2.9)}}
"""Budget of EfficientTrain++: ranks: CSWin-Base's speed-up without and with early large batch."""


def plans(
    epochs: float, baseline_epochs: float, dataset_size: int, batch_size: int, most: int | None, replays: int
) -> dict[str, Plan]:
    """The runs that are told apart, the constant baseline first."""
    shared: dict[str, Any] = {"dataset_size": dataset_size, "batch_size": batch_size}
    curriculum = preset("efficienttrain_plus_plus")
    early = plan(curriculum, epochs=epochs, early_batch="auto", max_batch_size=most, **shared)
    made = {
        "constant": plan(constant(224), epochs=baseline_epochs, **shared),
        "curriculum": plan(curriculum, epochs=epochs, **shared),
        "early batch": early,
    }
    return made if not replays else {**made, "early batch, replay": early.with_replay(replays)}


def speedups(
    made: Mapping[str, Plan], work: Workload, loading: Loading | None, network: Network, ranks: int
) -> dict[str, float]:
    """Times less than the constant baseline on the same ranks."""
    seconds = {name: run_seconds(run, work, loading, network, ranks) for name, run in made.items()}
    return {name: seconds["constant"] / spent for name, spent in seconds.items()}


def table_13(gbit: float, overlap: float) -> dict[str, Any]:
    """The paper's Table 13 beside the model's, with the latency of a hop fitted to one of its eight figures."""
    link = Network(latency=0.0, bandwidth=gbit * 1e9 / 8, overlap=overlap)
    budgets = {
        name: plans(_BASELINE_22K * share, _BASELINE_22K, _IMAGENET_22K, 4096, None, 0)
        for name, share in (("half", 1 / 2), ("third", 1 / 3))
    }

    def at(latency: float, budget: str, ranks: int) -> dict[str, float]:
        return speedups(budgets[budget], CSWIN_BASE, None, replace(link, latency=latency), ranks)

    latency = solve(lambda latency: at(latency, "half", 64)["curriculum"], 1.4, 0.0, 1.0)
    rows = [
        {
            "budget": budget,
            "ranks": ranks,
            "paper": list(paper),
            "model": [round(at(latency, budget, ranks)[name], 2) for name in ("curriculum", "early batch")],
        }
        for budget, by_ranks in TABLE_13.items()
        for ranks, paper in by_ranks.items()
    ]
    return {"latency_us": round(latency * 1e6, 1), "gbit": gbit, "overlap": overlap, "rows": rows}


def steps_of(
    made: Mapping[str, Plan], work: Workload, loading: Loading | None, network: Network, all_ranks: Iterable[int]
) -> list[dict[str, Any]]:
    """Each stage's step on each number of ranks: where its time goes, milliseconds."""
    rows = []
    for ranks in all_ranks:
        for name, run in made.items():
            for stage in run.stages:
                time = stage_time(stage, work, loading, network, ranks)
                parts = {key: round(1e3 * value, 1) for key, value in asdict(time).items()}
                rows.append(
                    {
                        "ranks": ranks,
                        "run": name,
                        "bandwidth": stage.bandwidth,
                        "batch": stage.batch_size,
                        "rows": stage.batch_size / ranks,
                        **parts,
                        "step": round(1e3 * time.total, 1),
                        "busy": round(time.compute / time.total, 2),
                        "bound_by": time.bound_by,
                    }
                )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A table in Markdown."""
    cells = [[", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in row.values()] for row in rows]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read_workload(path: Path, model: str) -> Workload:
    """A model's compute as `gpu.py --sections speed --json` measured it."""
    record = json.loads(path.read_text(encoding="utf-8"))
    models = record.get("speed", {}).get("models", {})
    if model not in models:
        raise SystemExit(f"{path} has no speed of {model}, but of {', '.join(models) or 'no model'}: give --model")
    measured = models[model]
    fixed, per_image = fit_compute(measured["points"])
    return Workload(
        name=f"{model} on {record['hardware']['accelerator'] or record['hardware']['cpu']}",
        parameters=measured["parameters"],
        seconds_per_image=per_image,
        fixed_seconds=fixed,
        source=record["command"],
    )


def read_loading(path: Path, way: str, workers: int) -> Loading:
    """A worker's speed as `loader.py` measured it."""
    record = json.loads(path.read_text(encoding="utf-8"))
    speeds = {int(side): float(speed) for side, speed in record[way].items()}
    return Loading(images_per_second=speeds, workers=workers, source=f"{path.name}, {way}: {record['command']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compute", type=Path, help="what gpu.py --json wrote; by default the paper's DeiT-Small")
    parser.add_argument("--model", default="deit_small_patch16_224", help="model of that file")
    parser.add_argument("--loader", type=Path, default=RESULTS / "loader.json", help="what loader.py --json wrote")
    parser.add_argument("--path", default="fast", choices=["peers", "faithful", "fast", "packed"])
    parser.add_argument("--workers", type=int, default=4, help="loader processes of each rank")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 16, 64])
    parser.add_argument("--gbit", type=float, default=100.0, help="link of one rank, Gbit/s")
    parser.add_argument("--latency-us", type=float, help="one hop; by default what Table 13 gives")
    parser.add_argument("--overlap", type=float, default=0.5, help="share of the compute that hides communication")
    parser.add_argument("--epochs", type=float, default=200.0)
    parser.add_argument("--baseline-epochs", type=float, default=300.0)
    parser.add_argument("--dataset-size", type=int, default=1_281_167)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--max-batch-size", type=int)
    parser.add_argument("--replay", type=int, default=1, help="replayed batches for each fresh one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    paper = table_13(options.gbit, options.overlap)
    work = read_workload(options.compute, options.model) if options.compute else DEIT_SMALL
    if missing := set(SIDES) - set(work.seconds_per_image):
        parser.error(f"{options.compute} lacks {', '.join(map(str, sorted(missing)))} px: run gpu.py without --sides")
    loading = read_loading(options.loader, options.path, options.workers)
    latency = paper["latency_us"] if options.latency_us is None else options.latency_us
    network = Network(latency=latency / 1e6, bandwidth=options.gbit * 1e9 / 8, overlap=options.overlap)
    made = plans(
        options.epochs,
        options.baseline_epochs,
        options.dataset_size,
        options.batch_size,
        options.max_batch_size,
        options.replay,
    )
    steps = steps_of(made, work, loading, network, options.ranks)
    gains = [
        {"ranks": ranks}
        | {name: round(value, 2) for name, value in speedups(made, work, loading, network, ranks).items()}
        for ranks in options.ranks
    ]
    if options.json:
        settings = {key: value.name if isinstance(value, Path) else value for key, value in vars(options).items()}
        record = {"options": settings, "table_13": paper, "workload": asdict(work), "loading": asdict(loading)}
        record |= {"network": asdict(network), "speedups": gains, "steps": steps}
        record |= {"command": " ".join(["python", *sys.argv]), "versions": versions()}
        print(json.dumps(record, indent=2))
        return
    print(f"Table 13, CSWin-Base: paper and model (one hop fitted: {paper['latency_us']} us)\n{table(paper['rows'])}\n")
    print(f"{work.name} ({work.source}); loader {loading.source}, {loading.workers} workers")
    print(f"speed-up against the constant baseline on as many ranks\n{table(gains)}\n\nsteps, ms\n{table(steps)}")


if __name__ == "__main__":
    main()
