"""What trained backbones are worth on other data: in classification, detection and segmentation, side by side.

Each run folder is one seed of its kind, and what is trained on it has that seed too: the order of the images and the
new layers are the same for all kinds. `--new MODEL` adds backbones that begin anew. Masks are ellipses in the boxes.
Example: `python benchmarks/backbones.py --boxes bccd.zip --classes imagenette:100:10 --runs usual runs/u0 runs/u1
--runs curriculum runs/e0 runs/e1`
"""

import argparse
import json
import runpy
import shlex
import sys
import tempfile
import zipfile
from contextlib import redirect_stdout
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Any

import torch
from PIL import Image, ImageDraw

from defaults import Case, exported_by, subset
from upchirp import TrainConfig, train
from upchirp.dense import read_pictures
from upchirp.machine import hardware, versions

EXAMPLES = Path(__file__).parents[1] / "examples"
FIGURES = {"classification": ("top1",), "detection": ("map", "map_50"), "segmentation": ("mIoU",)}
"""Of each task those that are shown."""
SIZE = (320, 240)
"""Width and height, pixels: half of the photographs'."""


def unpack(data: Path, folder: Path) -> Path:
    """The folder in the layout of Pascal VOC, from a zip or as it is."""
    if data.is_dir():
        return data
    with zipfile.ZipFile(data) as archive:
        archive.extractall(folder)
    return next(path.parent for path in folder.rglob("Annotations"))


def draw_masks(data: Path, folder: Path, size: tuple[int, int] = SIZE) -> Path:
    """A folder of images of `size`, and of masks with an ellipse of its class in each box, the largest first."""
    splits = read_pictures(data)
    for split, pictures in (("train", splits.train), ("val", splits.val)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for picture in pictures:
            with Image.open(picture.path) as opened:
                opened.resize(size, Image.Resampling.LANCZOS).save(folder / f"images/{split}/{picture.path.stem}.png")
            mask = Image.new("L", picture.size)
            for marked in sorted(picture.objects, key=lambda marked: -area(marked.box)):
                ImageDraw.Draw(mask).ellipse(marked.box, fill=splits.classes.index(marked.name) + 1)
            mask.resize(size, Image.Resampling.NEAREST).save(folder / f"masks/{split}/{picture.path.stem}.png")
    return folder


def area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def classify(options: argparse.Namespace, data: Path, weights: str | None, seed: int, output: Path) -> dict[str, float]:
    """Fine-tune by the defaults; what begins anew is trained by them."""
    start: dict[str, Any] = {"model": options.new, "model_kwargs": options.new_kwargs}
    if weights is not None:
        start = {"regime": "finetune", "weights": str(exported_by(Path(weights)))}
    asked = {**start, "data": str(data), "epochs": options.classes.epochs, "final_size": options.final_size}
    settings = {**asked, "seed": seed, "workers": options.workers, "evaluations": 1, "report": False}
    return {"top1": train(TrainConfig.from_flat({**settings, "output": str(output)})).top1}


def mark(options: argparse.Namespace, task: str, data: Path, weights: str | None, seed: int) -> dict[str, float]:
    """Train the task's example."""
    main = runpy.run_path(str(EXAMPLES / f"{task}.py"))["main"]
    new = {"model": options.new, "model_kwargs": options.new_kwargs} if weights is None else {}
    own = {"kind": options.detector, "min_size": min(SIZE), "max_size": max(SIZE), "epochs": options.epochs}
    if task == "segmentation":
        own = {"size": 224, "steps": options.steps, "scales": (1.0,)}
    shared = {"workers": options.workers, "seed": seed, "channels": 64, "batch_size": 8, "lr": options.lr}
    found: dict[str, float] = main(data, weights, **new, **own, **shared)
    return found


def spread(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" +- {stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=Path, help="photographs in the layout of Pascal VOC, or a zip of them")
    parser.add_argument("--classes", type=Case.parse, metavar="DATA:IMAGES:EPOCHS", help="so many images of each class")
    parser.add_argument("--runs", nargs="+", action="append", default=[], metavar=("NAME", "FOLDER"))
    parser.add_argument("--new", metavar="MODEL", help="timm's name of backbones to begin anew, for comparison")
    parser.add_argument("--new-kwargs", type=json.loads, default={}, help="arguments for their constructor, as JSON")
    parser.add_argument("--seeds", type=int, default=3, help="of the new ones")
    parser.add_argument("--tasks", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--final-size", type=int, default=64, help="of classification, pixels")
    parser.add_argument("--detector", default="retinanet")
    parser.add_argument("--epochs", type=int, default=12, help="of detection")
    parser.add_argument("--steps", type=int, default=300, help="of segmentation")
    parser.add_argument("--lr", type=float, default=1e-3, help="of detection and segmentation")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not (options.boxes or options.classes):
        parser.error("nothing to train on: give --boxes or --classes")
    if any(len(words) < 2 for words in options.runs) or not (options.runs or options.new):
        parser.error("no backbones: give --runs NAME FOLDER [FOLDER ...], or --new MODEL")
    torch.set_num_threads(options.threads)
    kinds: dict[str, list[str | None]] = {name: list(folders) for name, *folders in options.runs}
    if options.new:
        kinds["new"] = [None] * options.seeds
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary, redirect_stdout(sys.stderr):
        place = Path(temporary)
        data: dict[str, Path] = {}
        if options.classes:
            data["classification"] = subset(options.classes.data, place / "classes", options.classes.per_class)
        if options.boxes:
            data["detection"] = unpack(options.boxes, place / "boxes")
            data["segmentation"] = draw_masks(data["detection"], place / "masks")
        for task in (task for task in options.tasks if task in data):
            for kind, folders in kinds.items():
                for seed, folder in enumerate(folders):
                    start = perf_counter()
                    if task == "classification":
                        found = classify(options, data[task], folder, seed, place / f"{kind}-{seed}")
                    else:
                        found = mark(options, task, data[task], folder, seed)
                    about = {"task": task, "kind": kind, "weights": folder, "seed": seed}
                    runs.append({**about, "seconds": round(perf_counter() - start, 1)})
                    runs[-1] |= {name: round(value, 4) for name, value in found.items()}
                    print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    if options.json:
        command = shlex.join(["python", *sys.argv])
        print(json.dumps({"command": command, "hardware": hardware(), "versions": versions(), "runs": runs}, indent=2))
        return
    for task, names in FIGURES.items():
        for name in names:
            for kind in kinds:
                values = [run[name] for run in runs if run["task"] == task and run["kind"] == kind]
                if values:
                    print(f"{task} {name} {kind}: {spread(values)} (n = {len(values)})")


if __name__ == "__main__":
    main()
