"""What backbones are worth in detection and segmentation: mAP and mIoU on photographs of blood cells, side by side.

Each run folder is one seed of its kind, and what is trained on it has that seed too: the order of the images and the
new layers are the same for all kinds. `--new MODEL` adds backbones that begin anew. Masks are ellipses in the boxes.
Example: `python benchmarks/dense.py --data bccd.zip --runs constant runs/c0 runs/c1 --runs curriculum runs/e0 runs/e1`
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

from upchirp.dense import read_pictures
from upchirp.machine import hardware, versions

EXAMPLES = Path(__file__).parents[1] / "examples"
TASKS = ("detection", "segmentation")
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


def measure(options: argparse.Namespace, task: str, data: Path, weights: str | None, seed: int) -> dict[str, Any]:
    main = runpy.run_path(str(EXAMPLES / f"{task}.py"))["main"]
    new = {"model": options.new, "model_kwargs": options.new_kwargs} if weights is None else {}
    shared = {**new, "workers": options.workers, "seed": seed}
    if task == "detection":
        chosen = {"kind": options.detector, "min_size": min(SIZE), "max_size": max(SIZE), "epochs": options.epochs}
        batch = {"channels": 64, "batch_size": 8, "lr": options.lr}
    else:
        chosen = {"size": 224, "steps": options.steps, "scales": (1.0,)}
        batch = {"channels": 64, "batch_size": 8, "lr": options.lr}
    start = perf_counter()
    with redirect_stdout(sys.stderr):
        found = main(data, weights, **shared, **chosen, **batch)
    return {"seed": seed, "seconds": round(perf_counter() - start, 1), **{key: round(found[key], 4) for key in found}}


def spread(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" +- {stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder in the layout of Pascal VOC, or a zip of it")
    parser.add_argument("--runs", nargs="+", action="append", default=[], metavar=("NAME", "FOLDER"))
    parser.add_argument("--new", metavar="MODEL", help="timm's name of backbones to begin anew, for comparison")
    parser.add_argument("--new-kwargs", type=json.loads, default={}, help="arguments for their constructor, as JSON")
    parser.add_argument("--seeds", type=int, default=3, help="of the new ones")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--detector", default="retinanet")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kinds: dict[str, list[str | None]] = {name: list(folders) for name, *folders in options.runs}
    if options.new:
        kinds["new"] = [None] * options.seeds
    with tempfile.TemporaryDirectory() as temporary:
        boxes = unpack(options.data, Path(temporary) / "boxes")
        masks = draw_masks(boxes, Path(temporary) / "masks") if "segmentation" in options.tasks else boxes
        runs = [
            {"task": task, "kind": kind, "weights": folder, **measure(options, task, data, folder, seed)}
            for task, data in (("detection", boxes), ("segmentation", masks))
            if task in options.tasks
            for kind, folders in kinds.items()
            for seed, folder in enumerate(folders)
        ]
    if options.json:
        command = shlex.join(["python", *sys.argv])
        print(json.dumps({"command": command, "hardware": hardware(), "versions": versions(), "runs": runs}, indent=2))
        return
    for task, name in (("detection", "map"), ("detection", "map_50"), ("segmentation", "mIoU")):
        for kind in kinds:
            values = [run[name] for run in runs if run["task"] == task and run["kind"] == kind]
            if values:
                print(f"{task} {name} {kind}: {spread(values)} (n = {len(values)})")


if __name__ == "__main__":
    main()
