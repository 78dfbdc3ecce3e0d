"""Small runs, ways to disturb them, and what they leave: what the tests of many parts begin with and compare."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from upchirp import TrainConfig, train
from upchirp.training import Event, Interrupted, Noted, Stepped, read_metrics

Make = Callable[..., TrainConfig]
Observer = Callable[[Event], None]
WEIGHTS = ("model.safetensors", "model_ema.safetensors")

SMALL: dict[str, Any] = {
    "model": "test_vit", "final_size": 64, "epochs": 3, "batch_size": 32, "micro_batch": 16, "workers": 0,
    "device": "cpu", "deterministic": True, "recipe": "light", "model_ema": True, "model_ema_decay": 0.9,
    "model_ema_warmup": None, "mixup": 0.2, "randaug_layers": 1, "drop": 0.1, "evaluations": 2, "log_interval": 2,
    "checkpoint_interval": 1000, "report": False,
}  # fmt: skip
"""A run of 11 steps on the 64 images of `write_folder` at three bandwidths: a vision transformer and its average,
which rises by timm's rule, as one that is fitted to so short a run would hold the last weights alone."""
SHALLOW: dict[str, dict[str, Any]] = {"test_vit": {"depth": 2}}
"""What makes a model smaller yet, where a test does not say what it is made of."""


def settings(**changes: Any) -> dict[str, Any]:
    """The settings of a small run as plain data; `data` and `output` are to be given."""
    changed = {**SMALL, **changes}
    return {"model_kwargs": SHALLOW.get(changed["model"], {}), **changed}


def write_folder(root: Path, *, train: int = 32, val: int = 8, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """A data folder of 48 x 40 JPEGs whose classes differ in colour, so that a few steps can learn them."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (40, 48, 3))
                pixels[..., label % 3] += 130
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:03d}.jpg")
    return root


def write_tags(images: Path, table: Path) -> Path:
    """A table of such a folder's images with several labels, or none: `cat`, `dog`, and `wet`, which nothing shows."""
    rows = ["path,labels,split"]
    for split in ("train", "val"):
        for folder in sorted((images / split).iterdir()):
            for index, path in enumerate(sorted(folder.iterdir())):
                labels = [folder.name] * (index % 5 > 0) + ["wet"] * (index % 3 == 0)
                rows.append(f"{path},{';'.join(labels)},{split}")
    table.write_text("\n".join(rows))
    return table


def at_step(step: int, action: Callable[[], Any]) -> Observer:
    """An observer that does something once, when so many steps are done."""

    def observe(event: Event) -> None:
        if isinstance(event, Stepped) and event.step.index + 1 == step:
            action()

    return observe


def stop_after(step: int, signum: int = signal.SIGINT) -> Observer:
    """An observer that sends this process a signal when so many steps are done."""
    return at_step(step, lambda: signal.raise_signal(signum))


def interrupted(run: TrainConfig, step: int, *observers: Observer, **parts: Any) -> TrainConfig:
    """Train until a signal comes after a step; returns the same run, to be gone on with."""
    with pytest.raises(Interrupted) as caught:
        train(run, observers=[*observers, stop_after(step)], **parts)
    assert caught.value.step == step
    return replace(run, resume="auto")


def notes(events: list[Event]) -> list[str]:
    """What was noted."""
    return [event.message for event in events if isinstance(event, Noted)]


def logged(folder: Path | None, kind: str = "train") -> list[dict[str, Any]]:
    """The lines of one kind in a run's log."""
    assert folder is not None
    return [record for record in read_metrics(folder) if record["kind"] == kind]


def losses(folder: Path | None, kind: str = "train") -> dict[int, float]:
    """The logged losses by step."""
    return {record["step"]: record["loss"] for record in logged(folder, kind)}


def weights(folder: Path | None) -> dict[str, torch.Tensor]:
    """All that a run exported, by file and name."""
    assert folder is not None
    files = {name: load_file(folder / name) for name in WEIGHTS if (folder / name).exists()}
    assert files
    return {f"{name}: {key}": value for name, state in files.items() for key, value in state.items()}


def differing(first: Path | None, second: Path | None) -> list[str]:
    """The names of the weights that two runs ended with and that are not the same bit by bit."""
    one, other = weights(first), weights(second)
    return [key for key in sorted(one.keys() | other.keys()) if key not in one or key not in other
            or not torch.equal(one[key], other[key])]  # fmt: skip
