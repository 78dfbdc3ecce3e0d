"""`upchirp finetune` by its defaults against plain fine-tuning with torch and timm, for as many passes over the data.

A network is trained on one data set and fine-tuned on subsets of another. Plain is what a tutorial shows: a random
resized crop and a flip, AdamW at one rate for all parameters with a cosine, batches of 32, no average.
Example: `python benchmarks/fine_tuning.py --source tiny-imagenet-40:8 --cases imagenette:20:20 --output local/tuning`
"""

import argparse
import json
import shlex
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from defaults import MODELS, Case, Job, exported_by, subset
from upchirp import TrainConfig, train
from upchirp.machine import hardware, versions
from upchirp.models import computes

SETTINGS = ("upchirp", "constant", "plain-1e-4", "plain-3e-4", "plain-1e-3", "plain-3e-3", "scratch")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pretrain(model: str, options: argparse.Namespace) -> Path:
    """Weights of a network trained on the source."""
    source, _, epochs = options.source.rpartition(":")
    output = options.output / f"source-{model.replace('/', '-')}"
    train(
        TrainConfig.from_flat(
            {
                **MODELS[model], "data": source, "final_size": options.final_size, "epochs": float(epochs),
                "workers": options.pretrain_workers, "evaluations": 1, "output": str(output), "resume": "auto",
            }
        )
    )  # fmt: skip
    return exported_by(output)


def plain(job: Job, data: Path, weights: Path, options: argparse.Namespace) -> float:
    """Top-1 accuracy in percent of plain fine-tuning."""
    torch.manual_seed(job.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = options.final_size
    shared = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(_MEAN, _STD)]
    augment = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), *shared])
    centre = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size), *shared])
    training = datasets.ImageFolder(str(data / "train"), augment)
    validation = datasets.ImageFolder(str(data / "val"), centre)
    settings = MODELS[job.model]
    model = timm.create_model(
        settings["model"], num_classes=len(training.classes), **settings.get("model_kwargs", {}),
        **({"img_size": size} if "vit" in job.model else {}),
    )  # fmt: skip
    state = {name: value for name, value in load_file(weights).items() if not name.startswith(("head.", "fc."))}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    model.to(device)
    loader = DataLoader(training, batch_size=32, shuffle=True, drop_last=True)
    steps = max(1, round(job.case.epochs * len(training) / 32))
    rate = float(job.settings.partition("-")[2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    done = 0
    model.train()
    while done < steps:
        for images, labels in loader:
            with torch.autocast(device.type, torch.bfloat16, enabled=computes(device, torch.bfloat16)):
                logits = model(images.to(device))
            functional.cross_entropy(logits.float(), labels.to(device), label_smoothing=0.1).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            done += 1
            if done == steps:
                break
    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in DataLoader(validation, batch_size=128):
            right += int((model(images.to(device)).argmax(1).cpu() == labels).sum())
    return 100 * right / len(validation)


def run(job: Job, weights: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune once."""
    torch.set_num_threads(options.threads)
    data = options.output / "data" / job.case.name
    about: dict[str, Any] = {
        "data": job.case.name, "epochs": job.case.epochs, "model": job.model, "settings": job.settings,
        "seed": job.seed,
    }  # fmt: skip
    if job.settings.startswith("plain"):
        return {**about, "top1": plain(job, data, weights, options)}
    output = options.output / job.name
    start: dict[str, Any] = {} if job.settings == "scratch" else {"regime": "finetune", "weights": str(weights)}
    result = train(
        TrainConfig.from_flat(
            {
                **MODELS[job.model], **start, "data": str(data), "final_size": options.final_size,
                "epochs": job.case.epochs, "seed": job.seed, "workers": 0, "evaluations": 1,
                "checkpoint_interval": 100_000, "output": str(output), "resume": "auto",
                **({"curriculum": "constant"} if job.settings == "constant" else {}),
            }
        )
    )  # fmt: skip
    stage = result.plan.stages[-1]
    return {**about, "top1": result.top1, "batch_size": stage.batch_size, "lr": stage.learning_rate}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Means over the seeds, a row for each case."""
    lines = [f"| data, epochs, model | {' | '.join(SETTINGS)} |", "| --- " * (len(SETTINGS) + 1) + "|"]
    rows: dict[str, dict[str, list[float]]] = {}
    for each in results:
        row = rows.setdefault(f"{each['data']}, {each['epochs']:g}, {each['model']}", {})
        row.setdefault(each["settings"], []).append(each["top1"])
    for name, row in sorted(rows.items()):
        cells = [f"{mean(row[each]):.2f} ({len(row[each])})" if each in row else "-" for each in SETTINGS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, metavar="DATA:EPOCHS", help="what the network is trained on first")
    parser.add_argument("--cases", type=Case.parse, nargs="+", required=True, metavar="DATA:IMAGES:EPOCHS")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--models", choices=MODELS, nargs="+", default=list(MODELS))
    parser.add_argument("--final-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", choices=SETTINGS, nargs="+", default=list(SETTINGS))
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument(
        "--pretrain-workers", type=int, default=2, help="loader processes while the source is trained on"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch in each")
    options = parser.parse_args()
    for case in options.cases:
        subset(case.data, options.output / "data", case.per_class)
    about = {"command": shlex.join(["python", *sys.argv]), "hardware": hardware(), "versions": versions()}
    results: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        weights = dict(
            zip(options.models, pool.map(pretrain, options.models, [options] * len(options.models)), strict=True)
        )
        waiting = {
            pool.submit(run, Job(case, model, settings, seed), weights[model], options): settings
            for seed, case, model, settings in product(options.seeds, options.cases, options.models, options.settings)
        }
        for done in as_completed(waiting):
            try:
                results.append(done.result())
            except Exception:
                print(f"{waiting[done]} failed:\n{traceback.format_exc()}", file=sys.stderr)
                continue
            (options.output / "results.json").write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
            print(json.dumps(results[-1]), file=sys.stderr)
    print(table(results))


if __name__ == "__main__":
    main()
