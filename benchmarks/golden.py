"""Small runs that pass every part of the engine, and what comes of them, to tell that a change changed no number.

`python benchmarks/golden.py before.json` writes the exact losses and a SHA-256 of all weights of each run; another
checkout's file on the same machine is the same if its numbers are, and `--against before.json` says where not. Between
machines and versions of torch numbers differ by rounding: `tests/training/test_golden.py` allows for that.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from upchirp import InputError, TrainConfig, train
from upchirp.data import Source
from upchirp.data.sources import GeneratedSource
from upchirp.search import SearchConfig, search
from upchirp.training import Event, Interrupted, Stepped, open_ranks, read_metrics

Record = dict[str, Any]
"""Losses by step, evaluations, and the norms and SHA-256 of the weights of one run, by their files' names."""

SMALL = {
    "model": "test_vit", "final_size": 64, "epochs": 3, "batch_size": 32, "micro_batch": 16, "workers": 0,
    "device": "cpu", "deterministic": True, "recipe": "light", "opt": "sgd", "lr_base": 0.05, "amp": False,
    "model_ema": True, "model_ema_decay": 0.9, "model_ema_warmup": None, "mixup": 0.2, "cutmix": 1.0, "reprob": 0.5,
    "randaug_layers": 1, "drop": 0.1, "drop_path": 0.1, "clip_grad": 1.0, "evaluations": 2, "log_interval": 1,
    "checkpoint_interval": 1000, "report": False,
}  # fmt: skip
"""Settings of a run of 13 steps at three bandwidths; float32 and SGD, which do not enlarge rounding. The average
rises by timm's rule: one that is fitted to so short a run would hold the last weights alone."""

RUNS: dict[str, dict[str, Any]] = {
    "transformer": {},
    "adamw": {"opt": "adamw", "lr_base": 4e-3, "layer_decay": 0.75, "model_ema": False},
    "convolutions": {"model": "test_resnet", "final_size": 128, "batch_size": 16, "micro_batch": 8, "epochs": 1},
    "spectral_crop": {"low_frequency": "crop", "mode": "faithful"},
    "replay": {"replay": 1, "curriculum": "efficienttrain"},
    "replay_mixed": {"replay": 1, "replay_mode": "mixed", "mixup": 0.0, "cutmix": 0.0},
    "selection": {"select": "infobatch", "select_until": 1.0, "curriculum": "constant", "final_size": 32, "epochs": 5},
    "early_batch": {"early_batch": "auto", "lr_cap": 0.02},
    "head_only": {"tune": "head_and_norms", "curriculum": "linear"},
}
"""What each run on one rank changes."""

RANKS: dict[str, dict[str, Any]] = {
    "ranks": {"micro_batch": 8},
    "ranks_convolutions": RUNS["convolutions"],
    "ranks_fsdp": {"micro_batch": 8, "parallel": "fsdp"},
}
"""And each run on two."""


def images() -> tuple[Source, Source]:
    """64 images to train on and 16 others."""
    shown = {"size": 96, "num_classes": 4}
    return GeneratedSource("train", num_images=64, **shown), GeneratedSource("val", num_images=16, **shown)


def stop_after(steps: int) -> Callable[[Event], None]:
    """An observer that sends this process SIGINT when so many steps are done."""

    def observe(event: Event) -> None:
        if isinstance(event, Stepped) and event.step.index + 1 == steps:
            signal.raise_signal(signal.SIGINT)

    return observe


def config(folder: Path, changes: dict[str, Any]) -> TrainConfig:
    """The settings of a run in a folder."""
    return TrainConfig.from_flat({**SMALL, **changes, "output": str(folder)})


def record_of(folder: Path) -> Record:
    """What a finished run left in its folder."""
    metrics = read_metrics(folder)
    evaluations = [line for line in metrics if line["kind"] == "evaluation"]
    weights = {path.stem: load_file(path) for path in sorted(folder.glob("model*.safetensors"))}
    return {
        "losses": [line["loss"] for line in metrics if line["kind"] == "train"],
        "evaluations": [[line["weights"], line["bandwidth"], line["loss"]] for line in evaluations],
        "norms": {name: _norm(tensors) for name, tensors in weights.items()},
        "sha256": {name: _digest(tensors) for name, tensors in weights.items()},
    }


def run_alone(folder: Path, name: str) -> Record:
    """One of `RUNS`."""
    train(config(folder / name, RUNS[name]), data=images())
    return record_of(folder / name)


def run_resumed(folder: Path) -> Record:
    """The first of `RUNS`, stopped inside a stage and gone on with."""
    settings = config(folder / "resumed", {})
    try:
        train(settings, data=images(), observers=[stop_after(6)])
    except Interrupted:
        train(replace(settings, resume="auto"), data=images())
    return record_of(folder / "resumed")


def run_search(folder: Path, algorithm: str) -> Record:
    """A search over two bandwidths in three stages: the losses and accuracies of its trials, in order."""
    settings = config(folder / algorithm, {"model_ema": False, "batch_size": 16, "epochs": 2})
    own: dict[str, Any] = {"stages": 3, "candidates": (32, 64), "search_val": 0.25, "algorithm": algorithm}
    if algorithm == "sequential":
        own["tuning_epochs"] = 0.5
    search(SearchConfig(training=settings, **own), data=images()[0])
    lines = [json.loads(line) for line in (folder / algorithm / "journal.jsonl").read_text().splitlines()]
    trials = [line for line in lines if line["kind"] == "trial"]
    return {"losses": [line["loss"] for line in trials], "names": [line["name"] for line in trials]}


def run_ranks(folder: Path) -> dict[str, Record]:
    """All of `RANKS`, by two processes of torchrun's."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*start, __file__, "--rank-in", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise InputError(f"the ranks failed: {done.stderr}")
    return {name: record_of(folder / name) for name in RANKS}


def run_all(folder: Path) -> dict[str, Record]:
    """Every run, by name."""
    records = {name: run_alone(folder, name) for name in RUNS}
    records["resumed"] = run_resumed(folder)
    records |= {algorithm: run_search(folder, algorithm) for algorithm in ("sequential", "greedy")}
    return records | run_ranks(folder)


def differences(records: dict[str, Record], others: dict[str, Record]) -> list[str]:
    """Names of the runs and figures that are not the same, bit by bit."""
    return [
        f"{name}: {key}"
        for name in sorted(records.keys() | others.keys())
        for key in sorted(records.get(name, {}).keys() | others.get(name, {}).keys())
        if records.get(name, {}).get(key) != others.get(name, {}).get(key)
    ]


def _norm(tensors: dict[str, torch.Tensor]) -> float:
    return sum(tensor.double().square().sum().item() for tensor in tensors.values()) ** 0.5


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", help="JSON file to write")
    parser.add_argument("--against", type=Path, help="JSON file to compare with")
    parser.add_argument("--rank-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.rank_in:
        with open_ranks():
            for name, changes in RANKS.items():
                train(config(options.rank_in / name, changes), data=images())
        return
    with tempfile.TemporaryDirectory() as folder:
        records = run_all(Path(folder))
    if options.output:
        options.output.write_text(json.dumps(records, indent=1) + "\n")
    if options.against:
        differing = differences(records, json.loads(options.against.read_text()))
        print("\n".join(differing) or "all numbers are the same")
        sys.exit(bool(differing))


if __name__ == "__main__":
    main()
