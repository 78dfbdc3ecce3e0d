"""How fast images reach the device, and what that makes of a whole training: three sections of `gpu.py`.

`choice`       what `--prepare auto` would choose for each model, its line, and how long the measuring takes
`loader`       images/s of the loader with all its workers and no model, by bandwidth, who prepares, and files or packed
`end_to_end`   seconds of `upchirp train` at constant size against EfficientTrain++ for two thirds of that compute

Real JPEGs are linked until they are as many images as wanted, so that all of them stay in the page cache.
"""

import itertools
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from loader import as_data_folder, image_files
from sections import Keep
from upchirp import Augmentation, Loader, constant, plan
from upchirp.data import FolderSource, Source, open_data
from upchirp.data.device.decoding import jpeg_decoder
from upchirp.data.packing import pack
from upchirp.errors import InputError
from upchirp.training import TrainConfig, Trainer, curriculum_for
from upchirp.training.assets.models import make_model
from upchirp.training.folders.run_folder import read_metrics
from upchirp.training.probing.preparing import choose_prepare
from upchirp.training.probing.probe import Bench

CLASSES = 20
RUNS = (
    ("constant", 1.5, "cpu"),
    ("efficienttrain_plus_plus", 1.0, "device"),
    ("efficienttrain_plus_plus", 1.0, "cpu"),
    ("constant", 1.5, "device"),
)
"""Curriculum, equivalent epochs and who prepares, most telling first."""


@dataclass(frozen=True, kw_only=True)
class Feed:
    """What both sections share."""

    files: list[Path]
    """JPEGs."""
    folder: Path
    """Where data and runs are kept."""
    device: torch.device
    workers: int
    images: int
    """Training images that the files are linked to."""
    sides: tuple[int, ...]
    batch_size: int
    seconds: float
    """For each figure of the loader."""


def linked(feed: Feed) -> Path:
    """The data folder, made once: train/CLASS/ and val/CLASS/."""
    data = feed.folder / "data"
    if data.exists():
        return data
    for split, count in (("train", feed.images), ("val", 10 * CLASSES)):
        for number in range(count):
            folder = data / split / f"class{number % CLASSES:02d}"
            if number < CLASSES:
                folder.mkdir(parents=True)
            (folder / f"{number:06d}.jpg").symlink_to(feed.files[number % len(feed.files)].resolve())
    return data


def loader(feed: Feed, found: dict[str, Any], keep: Keep) -> None:
    """Images/s by source, bandwidth and who prepares, and seconds to the first batch."""
    sources: dict[str, Source] = {"files": FolderSource(linked(feed) / "train")}
    for name in ("files", "packed"):
        if name == "packed":
            plain = as_data_folder(feed.files, feed.folder / "plain")
            pack(plain, feed.folder / "packed")
            sources[name] = open_data(feed.folder / "packed", max(feed.sides))[0]
        for side, prepare in itertools.product(feed.sides, ways(feed.device)):
            figures = loader_rate(feed, sources[name], side, prepare)
            found.setdefault(name, {}).setdefault(str(side), {})[prepare] = figures
            keep()
            print(f"loader {name} {side} px {prepare}: {figures}", file=sys.stderr, flush=True)


def ways(device: torch.device) -> list[str]:
    """Who can prepare images here."""
    try:
        jpeg_decoder(device)
    except InputError:
        return ["device", "cpu"]
    return ["device", "cpu", "device-jpeg"]


def choice(feed: Feed, models: Sequence[str], found: dict[str, Any], keep: Keep) -> None:
    """Who is to prepare the files, by measuring, as at the beginning of a run that is long enough."""
    source = FolderSource(linked(feed) / "train")
    for name in models:
        values = {"model": name, "final_size": max(feed.sides), "batch_size": feed.batch_size, "workers": feed.workers}
        config = TrainConfig.from_flat({**values, "recipe": "paper"})
        trainer = Trainer.of(config, feed.device)
        model = trainer.place(make_model(config, CLASSES))
        curriculum = curriculum_for(model, config.curriculum, config.final_size)
        run = plan(curriculum, epochs=1, dataset_size=len(source), batch_size=feed.batch_size)
        begun = time.perf_counter()
        bench = Bench(trainer=trainer, curriculum=curriculum, model=model, source=source)
        prepare, line = choose_prepare(bench, config, run, packing_helps=lambda: True, report=lambda *told: None)
        found[name] = {"prepare": prepare, "line": line, "seconds": round(time.perf_counter() - begun, 2)}
        keep()
        print(f"choice {name}: {found[name]}", file=sys.stderr, flush=True)


def loader_rate(feed: Feed, source: Source, side: int, prepare: Any) -> dict[str, float]:
    """Images/s that arrive on the device after the first batches, which workers prepared while they started."""
    run = plan(
        constant(side),
        epochs=10_000 * feed.batch_size / len(source),
        dataset_size=len(source),
        batch_size=feed.batch_size,
    )
    begun = time.perf_counter()
    batches = iter(
        Loader(
            source,
            run,
            augmentation=Augmentation(),
            workers=feed.workers,
            device=feed.device,
            prepare=prepare,
        )
    )
    total = next(batches).images[0, 0, 0, 0].item()
    first = time.perf_counter() - begun
    for _ in range(2):
        total = next(batches).images[0, 0, 0, 0].item()
    started, spent, count = time.perf_counter(), 0.0, 0
    while spent < feed.seconds:
        batch = next(batches)
        # Waits until it is there.
        total += batch.images[0, 0, 0, 0].item()
        count += len(batch.labels)
        spent = time.perf_counter() - started
    batches.close()
    return {"images_per_second": round(count / spent, 1), "first_batch_s": round(first, 2)}


def end_to_end(feed: Feed, models: Sequence[str], found: dict[str, Any], keep: Keep) -> None:
    """Whole trainings, one after another."""
    data = linked(feed)
    found["command"] = "upchirp " + " ".join(arguments(feed, "DIR", "MODEL", "CURRICULUM", "EPOCHS", "PREPARE", "RUN"))
    found["runs"] = []
    for model, (curriculum, epochs, prepare) in itertools.product(models, RUNS):
        folder = feed.folder / "runs" / f"{model}-{curriculum}-{prepare}"
        words = arguments(feed, str(data), model, curriculum, str(epochs), prepare, str(folder))
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "upchirp", *words], capture_output=True, text=True)
        about = {"model": model, "curriculum": curriculum, "epochs": epochs, "prepare": prepare}
        wall = round(time.perf_counter() - begun, 1)
        run = {"failed": done.stderr[-2000:]} if done.returncode else of_log(read_metrics(folder))
        found["runs"].append({**about, "wall_seconds": wall, **run})
        keep()
        print(f"end to end: {found['runs'][-1]}", file=sys.stderr, flush=True)


def arguments(feed: Feed, data: str, model: str, curriculum: str, epochs: str, prepare: str, output: str) -> list[str]:
    return [
        "train", "--data", data, "--model", model, "--final-size", str(max(feed.sides)), "--recipe", "paper",
        "--batch-size", str(feed.batch_size), "--epochs", epochs, "--curriculum", curriculum, "--prepare", prepare,
        "--workers", str(feed.workers), "--evaluations", "1", "--log-interval", "2", "--device", feed.device.type,
        "--no-report", "--output", output,
    ]  # fmt: skip


def of_log(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Training seconds, and by bandwidth images/s over time, those of the first window, and the share of waiting."""
    windows = [line for line in lines if line["kind"] == "train"]
    figures: dict[str, Any] = {"train_seconds": lines[-1]["train_seconds"]}
    before = 0.0
    by_side: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for window in windows:
        by_side.setdefault(str(window["bandwidth"]), []).append((window["train_seconds"] - before, window))
        before = window["train_seconds"]
    for side, own in by_side.items():
        spent = sum(seconds for seconds, _ in own)
        figures[side] = {
            "seconds": round(spent, 2),
            "images_per_second": round(sum(s * w["images_per_second"] for s, w in own) / max(spent, 1e-9), 1),
            "first_window": round(own[0][1]["images_per_second"], 1),
            "later_windows": round(fmean(w["images_per_second"] for _, w in own[1:]), 1) if own[1:] else None,
            "waiting": round(sum(s * w["wait_share"] for s, w in own) / max(spent, 1e-9), 3),
        }
    return figures


def make_feed(
    images: Path, folder: Path, device: torch.device, workers: int, sides: Sequence[int], *, small: bool
) -> Feed:
    """What the sections share, with the JPEGs of a folder or zip file."""
    folder.mkdir(parents=True, exist_ok=True)
    return Feed(
        files=image_files(images, folder / "unpacked"),
        folder=folder,
        device=device,
        workers=workers,
        images=120 if small else 30_000,
        sides=tuple(sorted(sides)),
        batch_size=20 if small else 1024,
        seconds=0.2 if small else 5.0,
    )
