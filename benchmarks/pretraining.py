"""Pre-training without labels by the curriculum and as usual, and what it is worth (Table 15).

A small vision transformer is pre-trained on images without labels, with histograms of gradients or pixels, by each
curriculum and for each budget. Its features are probed by nearest neighbours and a linear classifier, and it is
fine-tuned. Beside it stand the same network untrained, and trained from scratch with labels for as much compute as the
largest pre-training and the fine-tuning take together. Compute is multiply-adds of the forward passes, counted at each
bandwidth; runs that are finished are not run again.
Example: `python benchmarks/pretraining.py --data tiny-imagenet-40.zip --epochs 20 40 --output local/table-15`
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from safetensors.torch import save_file

from upchirp import TrainConfig, train
from upchirp.curriculum import Plan
from upchirp.machine import hardware, versions
from upchirp.models import count_flops, create_model
from upchirp.training import EvalData, EvalLoading, Origin, probe_weights, read_plan
from upchirp.training.methods.mae import MaskedAutoencoding

NETWORK = {"model": "vit_tiny_patch16_224", "model_kwargs": {"patch_size": 8, "depth": 6}, "final_size": 64}
DECODER = {"decoder_depth": 2, "decoder_width": 96}
TARGETS = ("hog", "pixels")
CURRICULA = ("constant", "efficienttrain_plus_plus")
TUNED = {"regime": "mae", "drop_path": 0.0}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to weights."""

    kind: str
    """`untrained`, `scratch`, or the target of a pre-training."""
    curriculum: str
    """Of the pre-training."""
    epochs: float
    """Of the pre-training."""
    seed: int
    """Of all that is trained."""

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.kind}-{self.curriculum}-{self.epochs:g}-seed{self.seed}"


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """All of them, seed after seed."""
    for seed in options.seeds:
        yield Case(kind="untrained", curriculum="none", epochs=0.0, seed=seed)
        for target, curriculum, epochs in product(options.targets, CURRICULA, options.epochs):
            yield Case(kind=target, curriculum=curriculum, epochs=epochs, seed=seed)
        if options.tuning_epochs:
            yield Case(kind="scratch", curriculum="constant", epochs=0.0, seed=seed)


def common(options: argparse.Namespace, output: Path, seed: int) -> dict[str, Any]:
    """Settings of every training."""
    return {
        "data": str(options.data), "output": str(output), "resume": "auto", "seed": seed, "workers": options.workers,
        "report": False, "evaluations": 1, "checkpoint_interval": 2000, "final_size": NETWORK["final_size"],
    }  # fmt: skip


def pretrained(case: Case, options: argparse.Namespace) -> tuple[Path, float, float]:
    """Weights to begin with, the compute and the seconds that they took."""
    output = options.output / case.name
    task = MaskedAutoencoding(target="hog" if case.kind == "untrained" else case.kind, **DECODER)
    if case.kind == "untrained":
        torch.manual_seed(case.seed)
        model = task.around(_network(), fresh=True)
        output.mkdir(parents=True, exist_ok=True)
        path = output / "model.safetensors"
        save_file({name: value.clone() for name, value in task.exported(model, model.state_dict())[1].items()}, path)
        return path, 0.0, 0.0
    result = train(
        TrainConfig.from_flat(
            {
                **common(options, output, case.seed), **NETWORK, **DECODER, "regime": "pretrain", "target": case.kind,
                "curriculum": case.curriculum, "epochs": case.epochs, "batch_size": options.batch_size,
                "lr": options.lr,
            }
        )
    )  # fmt: skip
    return output / "model.safetensors", compute(result.plan, task.around(_network(), fresh=True)), result.train_seconds


def _network() -> torch.nn.Module:
    return create_model(NETWORK["model"], num_classes=0, final_size=NETWORK["final_size"], **NETWORK["model_kwargs"])


def compute(plan: Plan, model: torch.nn.Module) -> float:
    """Multiply-adds of the forward passes of a plan, in 10 ** 12."""
    return sum(stage.samples * count_flops(model, stage.bandwidth) for stage in plan.stages) / 1e12


def tuned(case: Case, weights: Path, options: argparse.Namespace) -> dict[str, float]:
    """Top-1 after fine-tuning, and the compute of that."""
    output = options.output / f"{case.name}-tuned"
    settings = {
        **common(options, output, case.seed), **TUNED, "weights": str(weights), "epochs": options.tuning_epochs,
        "batch_size": options.batch_size, "lr": options.tuning_lr, **NETWORK,
    }  # fmt: skip
    result = train(TrainConfig.from_flat(settings))
    return {"top1": result.top1, "compute": compute(result.plan, _network()), "seconds": result.train_seconds}


def scratch(case: Case, longest: float, options: argparse.Namespace) -> dict[str, Any]:
    """With labels from the start, for as much compute; with the augmentation of fine-tuning, and all layers alike."""
    output = options.output / case.name
    images = len(_images(options))
    epochs = longest * 1e12 / (count_flops(_network(), NETWORK["final_size"]) * images)
    kwargs = {**NETWORK["model_kwargs"], "global_pool": "avg"}
    settings = {
        **common(options, output, case.seed), **NETWORK, "model_kwargs": kwargs, "recipe": "default",
        "curriculum": "constant", "epochs": epochs, "batch_size": options.batch_size, "lr": options.tuning_lr,
        "warmup": 0.05,
    }  # fmt: skip
    result = train(TrainConfig.from_flat(settings))
    return {"tuned": {"top1": result.top1, "compute": longest, "seconds": result.train_seconds}}


def _images(options: argparse.Namespace) -> range:
    return range(read_plan(next(options.output.glob("*-seed*-tuned"))).dataset_size)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means and deviations over the seeds."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["curriculum"], row["epochs"]), []).append(row)
    lines = []
    for (kind, curriculum, epochs), own in groups.items():
        line: dict[str, Any] = {"kind": kind, "curriculum": curriculum, "epochs": epochs, "n": len(own)}
        line["compute"] = mean(row["compute"] if "compute" in row else row["tuned"]["compute"] for row in own)
        for name in ("knn", "linear", "tuned"):
            values = [row[name]["top1"] for row in own if name in row]
            if values:
                line[name] = round(mean(values), 2)
                line[f"{name}_deviation"] = round(stdev(values), 2) if len(values) > 1 else None
        lines.append(line)
    return lines


def main() -> None:
    """Run what is missing, and write all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder or a zip of classes")
    parser.add_argument("--output", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--epochs", type=float, nargs="+", default=[20.0, 40.0], help="budgets of the pre-training")
    parser.add_argument("--tuning-epochs", type=float, default=10.0, help="0 leaves fine-tuning out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3, help="of the pre-training")
    parser.add_argument("--tuning-lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for case in cases(options):
        row: dict[str, Any] = {**vars(case)}
        if case.kind == "scratch":
            own = [each for each in rows if each["seed"] == case.seed]
            row |= scratch(case, max(each["compute"] + each["tuned"]["compute"] for each in own), options)
        else:
            weights, row["compute"], row["seconds"] = pretrained(case, options)
            row |= probe_weights(
                Origin(weights=weights, model=NETWORK["model"], model_kwargs=NETWORK["model_kwargs"]),
                EvalData(data=str(options.data)),
                pooled="mean",
                final_size=64,
                loading=EvalLoading(workers=options.workers),
            )
            if options.tuning_epochs:
                row["tuned"] = tuned(case, weights, options)
        rows.append(row)
        print(json.dumps(row), flush=True)
        found = {"settings": {**vars(options), "data": options.data.name, "output": None}, "network": NETWORK,
                 "decoder": DECODER, "hardware": hardware(), "versions": versions(), "summary": summary(rows),
                 "rows": rows}  # fmt: skip
        (options.output / "table-15.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
