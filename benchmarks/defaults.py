"""What a training chooses by itself against a small grid of batches, rates and recipes, at the same budget.

Subsets of a data folder stand for data sets of other sizes: the first images of each class after a seeded shuffle, with
all validation images. Each run is resumable and counted once, so a stopped measurement goes on by the same command.
Example: `python benchmarks/defaults.py --data imagenette --per-class 100 --epochs 8 --output local/defaults --json`
"""

import argparse
import json
import random
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from upchirp import TrainConfig, train
from upchirp.cli.display import Display
from upchirp.compare import hardware, versions

GRID: list[dict[str, Any]] = [
    {"recipe": recipe, "batch_size": batch_size, "lr": lr}
    for recipe, batch_size, lr in [
        ("light", 16, 1e-3),
        ("light", 16, 3e-3),
        ("light", 64, 1e-3),
        ("light", 64, 3e-3),
        ("light", 256, 3e-3),
        ("paper", 64, 3e-3),
    ]
]


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


def run(name: str, options: argparse.Namespace, data: Path, seed: int, asked: dict[str, Any]) -> dict[str, Any]:
    """Train once, or read what an earlier call trained."""
    output = options.output / f"{data.name}-{name}-seed{seed}"
    config = TrainConfig.from_flat(
        {
            "data": str(data),
            "model": options.model,
            "model_kwargs": options.model_kwargs,
            "seed": seed,
            "final_size": options.final_size,
            "epochs": options.epochs,
            "workers": options.workers,
            "evaluations": 1,
            "checkpoint_interval": 100_000,
            "output": str(output),
            "resume": "auto",
            **asked,
        }
    )
    with Display(Console(stderr=True), title=output.name) as display:
        result = train(config, observers=(display,))
    stage = result.plan.stages[-1]
    return {
        "name": name, "seed": seed, "top1": result.top1, "steps": result.plan.total_steps,
        "batch_size": stage.batch_size, "lr": stage.learning_rate, "train_seconds": result.train_seconds,
    }  # fmt: skip


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The chosen settings for every seed, and the grid for the first ones."""
    results = []
    for per_class in options.per_class:
        data = subset(options.data, options.output / "data", per_class)
        runs = [run("chosen", options, data, seed, {}) for seed in options.seeds]
        for seed in options.grid_seeds:
            runs += [
                run(f"{grid['recipe']}-{grid['batch_size']}-{grid['lr']:g}", options, data, seed, grid) for grid in GRID
            ]
        results.append({"data": data.name, "epochs": options.epochs, "model": options.model, "runs": runs})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--output", type=Path, required=True, help="folder for subsets and runs")
    parser.add_argument("--per-class", type=int, nargs="+", default=[100], help="training images a class; 0 for all")
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--model-kwargs", type=json.loads, default={}, help="as JSON")
    parser.add_argument("--final-size", type=int, default=64)
    parser.add_argument("--epochs", type=float, required=True, help="equivalent epochs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--grid-seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = measure(options)
    if options.json:
        command = shlex.join(["python", *sys.argv])
        print(json.dumps({"command": command, "hardware": hardware(), "versions": versions(), "results": results}))
        return
    for result in results:
        for row in result["runs"]:
            print(
                f"{result['data']:<24} {row['name']:<16} seed {row['seed']}: {row['top1']:.2f} %, {row['steps']} steps"
            )


if __name__ == "__main__":
    main()
