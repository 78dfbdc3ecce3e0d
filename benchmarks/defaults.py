"""What a training chooses by itself against a grid of batches, rates and recipes, at the same budget.

Subsets of a data folder stand for data sets of other sizes: the first images of each class after a seeded shuffle, with
all validation images. All runs of the first seed come before those of the second, and each result is written as it
comes, so that a measurement that is stopped is balanced, and goes on by the same command.
Example: `python benchmarks/defaults.py --cases imagenette:100:8 tiny-imagenet-40:0:3 --output local/defaults`
"""

import argparse
import json
import random
import shlex
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from upchirp import TrainConfig, train
from upchirp.machine import hardware, versions
from upchirp.training.folders.run_folder import WEIGHTS, WEIGHTS_EMA

GRID = [
    f"{recipe}:{rate}"
    for recipe, rate in product(["light:16", "light:64", "light:256", "paper:64"], ["3e-4", "1e-3", "3e-3"])
]
"""Recipe, batch and rate; further settings may follow, as `light:64:1e-3:clip_grad=1.0`."""
MODELS: dict[str, dict[str, Any]] = {
    "resnet10t": {"model": "resnet10t"},
    "vit_tiny/8": {"model": "deit_tiny_patch16_224", "model_kwargs": {"patch_size": 8}},
    "convnext_atto": {"model": "convnext_atto"},
}
"""Networks of a size for small images, with batch norm and without."""


@dataclass(frozen=True)
class Case:
    """A data set, how much of it, and for how long."""

    data: Path
    per_class: int
    epochs: float

    @classmethod
    def parse(cls, text: str) -> "Case":
        data, per_class, epochs = text.rsplit(":", 2)
        return cls(Path(data), int(per_class), float(epochs))

    @property
    def name(self) -> str:
        return f"{self.data.name}-{self.per_class or 'all'}"


@dataclass(frozen=True)
class Job:
    """One training."""

    case: Case
    model: str
    settings: str
    seed: int

    @property
    def name(self) -> str:
        settings = self.settings.replace(":", "-")
        model = self.model.replace("/", "-")
        return f"{self.case.name}-{self.case.epochs:g}-{model}-{settings}-seed{self.seed}"


def asked_for(settings: str) -> dict[str, Any]:
    """What is asked for by a point of the grid; nothing for `chosen`."""
    if settings == "chosen":
        return {}
    recipe, batch_size, rate, *others = settings.split(":")
    more = {name: json.loads(value) for name, _, value in (other.partition("=") for other in others)}
    return {"recipe": recipe, "batch_size": int(batch_size), "lr": float(rate), **more}


def subset(data: Path, folder: Path, per_class: int) -> Path:
    """A data folder of links to so many training images of each class; 0 takes all."""
    part = folder / f"{data.name}-{per_class or 'all'}"
    for split in ("train", "val"):
        for source in sorted((data / split).iterdir()):
            files = sorted(file for file in source.rglob("*") if file.is_file())
            if split == "train" and per_class:
                random.Random(0).shuffle(files)
                files = files[:per_class]
            target = part / split / source.name
            target.mkdir(parents=True, exist_ok=True)
            for file in files:
                if not (target / file.name).exists():
                    (target / file.name).symlink_to(file.resolve())
    return part


def exported_by(folder: Path) -> Path:
    """The weights of a finished run: their average if it keeps one."""
    average = folder / WEIGHTS_EMA
    return average if average.exists() else folder / WEIGHTS


def run(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Train once, or go on where an earlier call stopped."""
    torch.set_num_threads(options.threads)
    output = options.output / job.name
    config = TrainConfig.from_flat(
        {
            **MODELS[job.model],
            "data": str(options.output / "data" / job.case.name),
            "seed": job.seed,
            "final_size": options.final_size,
            "epochs": job.case.epochs,
            "workers": options.workers,
            "evaluations": 1,
            "checkpoint_interval": 100_000,
            "output": str(output),
            "resume": "auto",
            **asked_for(job.settings),
        }
    )
    result = train(config)
    stage = result.plan.stages[-1]
    return {
        "data": job.case.name, "epochs": job.case.epochs, "model": job.model, "settings": job.settings,
        "seed": job.seed, "top1": result.top1, "steps": result.plan.total_steps, "batch_size": stage.batch_size,
        "lr": stage.learning_rate, "train_seconds": result.train_seconds,
    }  # fmt: skip


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    for seed, case, model, settings in product(options.seeds, options.cases, options.models, options.settings):
        if settings == "chosen" or seed in options.grid_seeds:
            yield Job(case, model, settings, seed)


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The results, as they come, until all are there or the time is up."""
    begun = time.monotonic()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run, job, options): job for job in jobs(options)}
        try:
            left = None if options.limit is None else options.limit - (time.monotonic() - begun)
            for done in as_completed(waiting, timeout=left):
                try:
                    yield done.result()
                except Exception:
                    print(f"{waiting[done].name} failed:\n{traceback.format_exc()}", file=sys.stderr)
        except TimeoutError:
            print("time is up", file=sys.stderr)
            for process in list(pool._processes.values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


def table(results: Sequence[dict[str, Any]]) -> str:
    """For each case and model the chosen settings and the best of the grid, means over the seeds."""
    lines = [
        "| data, epochs, model | chosen | n | best of the grid | n | difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    by_case: dict[tuple[str, float, str], dict[str, list[float]]] = {}
    for each in results:
        of = by_case.setdefault((each["data"], each["epochs"], each["model"]), {})
        of.setdefault(each["settings"], []).append(each["top1"])
    for (data, epochs, model), of in sorted(by_case.items()):
        chosen = of.pop("chosen", [])
        if not chosen or not of:
            continue
        best = max(of, key=lambda name: mean(of[name]))
        lines.append(
            f"| {data}, {epochs:g}, {model} | {mean(chosen):.2f} | {len(chosen)} | {best}: {mean(of[best]):.2f} | "
            f"{len(of[best])} | {mean(chosen) - mean(of[best]):+.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cases", type=Case.parse, nargs="+", required=True, metavar="DATA:IMAGES:EPOCHS",
        help="folders with train/ and val/, training images a class (0 for all), equivalent epochs",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, help="folder for subsets, runs and results.json")
    parser.add_argument("--models", choices=MODELS, nargs="+", default=["resnet10t", "vit_tiny/8"])
    parser.add_argument("--settings", nargs="+", default=["chosen", *GRID], metavar="RECIPE:BATCH:RATE")
    parser.add_argument("--final-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--grid-seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--workers", type=int, default=0, help="loader processes of each")
    parser.add_argument("--threads", type=int, default=1, help="of torch in each")
    parser.add_argument("--limit", type=float, help="seconds after which what runs is given up")
    options = parser.parse_args()
    for case in options.cases:
        subset(case.data, options.output / "data", case.per_class)
    about = {"command": shlex.join(["python", *sys.argv]), "hardware": hardware(), "versions": versions()}
    results: list[dict[str, Any]] = []
    for result in measure(options):
        results.append(result)
        text = json.dumps({**about, "results": results}, indent=1)
        (options.output / "results.json").write_text(text + "\n")
        print(json.dumps(result), file=sys.stderr)
    print(table(results))


if __name__ == "__main__":
    main()
