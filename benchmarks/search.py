"""Is a searched curriculum worth its search? On a folder of small images, with a small network.

    python benchmarks/search.py --data tiny-imagenet-40 --output DIR --json benchmarks/results/search.json

`search` runs Algorithm 2 on the training images. `curricula` trains the found curriculum, the presets and training at
the final size from scratch, all at the same compute (counted FLOPs), and scores them on the validation images, which
the search never saw. `halving` searches again with early stopping: what it saves, and whether it agrees. `objectives`
searches by the other two rows of Table 21 and trains what they find. `parallel` times a shorter search with one worker
and with two; it wants the machine for itself.

Every section goes on where it was interrupted, and adds to the JSON file.
"""

import argparse
import json
import multiprocessing
import shlex
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from upchirp import TrainConfig, train
from upchirp.machine import hardware, versions
from upchirp.models import create_model
from upchirp.search import SearchConfig, search
from upchirp.training import curriculum_for, make_plan

SECTIONS = ("search", "curricula", "halving", "objectives", "parallel")
MODEL = {"model": "resnet10t", "model_kwargs": {"channels": [32, 64, 128, 128], "stem_width": 16}}
RAMP = "phases: [{end: 1.0, bandwidth: %d}]\nname: constant_ramp\n"
PRESETS = ("efficienttrain_plus_plus", "linear", "constant")


def settings(options: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    return {
        **MODEL,
        "data": str(options.data),
        "final_size": options.final_size,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "recipe": "light",
        "cost": "flops",
        "workers": 0,
        "device": "cpu",
        "evaluations": 1,
        "resume": "auto",
        **changes,
    }


def run_search(options: argparse.Namespace, name: str, **changes: Any) -> dict[str, Any]:
    """One search, told by its summary without hardware and versions, which the file holds once."""
    flat = settings(
        options,
        stages=options.stages,
        candidates=options.candidates,
        candidates_at_once=options.parallel,
        output=str(options.output / name),
        **changes,
    )
    started = time.perf_counter()
    result = search(SearchConfig.from_flat(flat), observers=(tell(name),))
    summary = result.summary
    names = (
        "objective", "alpha", "halving", "stages", "candidates", "epochs", "tuning_epochs", "axis", "images", "found",
        "phases", "trainings", "equivalent_epochs", "train_seconds",
    )  # fmt: skip
    return {
        **{key: summary[key] for key in names},
        "times_one_training": summary["equivalent_epochs"] / summary["epochs"],
        "session_seconds": time.perf_counter() - started,
        "trials": [
            {key: trial[key] for key in ("name", "accuracy", "loss", "cost", "tuning_cost", "seconds")}
            for trial in summary["trials"]
        ],
    }


def tell(name: str) -> Any:
    from rich.console import Console

    from upchirp.cli.search_display import SearchDisplay

    print(name, file=sys.stderr)
    return SearchDisplay(Console(stderr=True))


def same_compute(file: str, options: argparse.Namespace) -> tuple[float, Any]:
    """The number of epochs that makes a curriculum cost the budget, and its phases: equal ones train alike.

    Epochs are real passes, where a curriculum counts samples.
    """
    config = TrainConfig.from_flat(settings(options, curriculum=file, resume=None))
    with torch.device("meta"):
        model = create_model(config.model, final_size=config.final_size, num_classes=40, **config.model_kwargs)
    curriculum = curriculum_for(model, file, config.final_size)
    # Of a budget that is long enough for rounding to whole steps not to show.
    cost = make_plan(replace(config, epochs=1000.0), curriculum, 20_000, model=model).equivalent_epochs
    return options.epochs * 1000.0 / cost, (curriculum.axis, curriculum.phases, curriculum.magnitude)


def run_training(flat: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    result = train(TrainConfig.from_flat(flat))
    return {
        "top1": result.top1,
        "seconds": result.train_seconds,
        "equivalent_epochs": result.plan.equivalent_epochs,
        "stages": [[stage.bandwidth, stage.steps] for stage in result.plan.stages],
    }


def run_trainings(options: argparse.Namespace, curricula: dict[str, str]) -> list[dict[str, Any]]:
    """Every curriculum from scratch with every seed, at the same compute."""
    budgets = {name: same_compute(file, options) for name, file in curricula.items()}
    twin = {name: next(other for other in budgets if budgets[other][1] == budgets[name][1]) for name in budgets}
    jobs = {
        (name, seed): settings(
            options, curriculum=curricula[name], epochs=budgets[name][0], seed=seed,
            output=str(options.output / "curricula" / f"{name}-seed{seed}"),
        )
        for seed in options.seeds
        for name in dict.fromkeys(twin.values())
    }  # fmt: skip
    with ProcessPoolExecutor(options.parallel, multiprocessing.get_context("spawn")) as pool:
        results = dict(zip(jobs, pool.map(run_training, jobs.values()), strict=True))
    rows = []
    for name in curricula:
        own = [results[twin[name], seed] for seed in options.seeds]
        rows.append(
            {
                "curriculum": name,
                "same_as": None if twin[name] == name else twin[name],
                "stages": own[0]["stages"],
                "equivalent_epochs": own[0]["equivalent_epochs"],
                "top1": [run["top1"] for run in own],
                "mean": fmean(run["top1"] for run in own),
                "train_seconds": [run["seconds"] for run in own],
            }
        )
    return rows


def curricula(options: argparse.Namespace) -> dict[str, Any]:
    ramp = options.output / "constant_ramp.yaml"
    ramp.write_text(RAMP % options.final_size)
    files = {"searched": str(options.output / "search" / "curriculum.yaml")}
    files |= {name: name for name in PRESETS} | {"constant_ramp": str(ramp)}
    return {"seeds": options.seeds, "runs": run_trainings(options, files)}


def halving(options: argparse.Namespace, whole: dict[str, Any]) -> dict[str, Any]:
    """The same search with early stopping, and how it compares where both saw the same stage from the same state."""
    halved = run_search(options, "halving", halving=True)
    agreed = [a == b for a, b in zip(halved["found"][:-1], whole["found"][:-1], strict=True)]
    # As long as both went the same way, the halved search stands before the same choice as the whole one.
    same_choice = agreed.index(False) + 1 if False in agreed else len(agreed)
    return {
        **halved,
        "saved": 1 - halved["equivalent_epochs"] / whole["equivalent_epochs"],
        "stages_agreed": sum(agreed[:same_choice]),
        "stages_compared": same_choice,
    }


def objectives(options: argparse.Namespace) -> dict[str, Any]:
    found = {name: run_search(options, name, objective=name) for name in ("error_time", "loss_time")}
    files = {f"searched, {name}": str(options.output / name / "curriculum.yaml") for name in found}
    return {"searches": found, "seeds": options.seeds, "runs": run_trainings(options, files)}


def parallel(options: argparse.Namespace) -> dict[str, Any]:
    """Wall-clock time of a short search with one worker and with two, in turn, with its processes' start."""
    scores: list[Any] = []
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for repeat in range(options.parallel_repeats):
        for workers in seconds:
            folder = options.output / f"parallel-{workers}"
            shutil.rmtree(folder, ignore_errors=True)
            flat = settings(
                options, stages=3, candidates=options.parallel_candidates, candidates_at_once=workers,
                output=str(folder), epochs=options.parallel_epochs,
            )  # fmt: skip
            started = time.perf_counter()
            result = search(SearchConfig.from_flat(flat), observers=(tell(f"{workers} workers, {repeat + 1}"),))
            seconds[workers].append(time.perf_counter() - started)
            scores.append(
                [
                    {key: trial[key] for key in ("name", "accuracy", "loss")}
                    for trial in sorted(result.summary["trials"], key=lambda trial: trial["name"])
                ]
            )
    return {
        "candidates": options.parallel_candidates,
        "epochs": options.parallel_epochs,
        "seconds": seconds,
        "speedup": median(one / two for one, two in zip(*seconds.values(), strict=True)),
        "same_scores": all(other == scores[0] for other in scores),
    }


def measure(section: str, options: argparse.Namespace, record: dict[str, Any]) -> dict[str, Any]:
    if section == "search":
        return run_search(options, "search")
    if section == "curricula":
        return curricula(options)
    if section == "halving":
        return halving(options, record["search"])
    return {"objectives": objectives, "parallel": parallel}[section](options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/CLASS/* and val/CLASS/*")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS[:3])
    parser.add_argument("--final-size", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=4.0, help="budget T of a whole training, equivalent epochs")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--stages", type=int, default=5)
    parser.add_argument("--candidates", type=int, nargs="+", default=[28, 46, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the trainings from scratch")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at the same time, one thread each")
    parser.add_argument("--parallel-candidates", type=int, nargs="+", default=[28, 34, 46, 64])
    parser.add_argument("--parallel-epochs", type=float, default=2.0)
    parser.add_argument("--parallel-repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True, help="keep searches and runs here, and go on with them")
    parser.add_argument("--json", type=Path, required=True, help="the results; sections in it are kept or replaced")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for section in options.sections:
        record = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
        command = shlex.join(["python", *sys.argv])
        made = {"command": command, "hardware": hardware(), "versions": versions()}
        record[section] = {**made, **measure(section, options, record)}
        options.json.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        print(json.dumps({section: record[section]})[:2000])


if __name__ == "__main__":
    main()
