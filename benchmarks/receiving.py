"""What an image costs the training process, which takes chunks from the workers and puts them together.

On a machine with many cores this one process bounds the loader, whatever the workers do. CPU time of its thread, in
microseconds an image: to take a chunk from the `DataLoader`, and to copy it to where the batch is made.

Example: `python benchmarks/receiving.py --images imagenet-sample-200.zip --json`
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from loader import SAMPLE, as_data_folder, image_files
from upchirp import Loader, constant, plan
from upchirp.data import FolderSource, Source
from upchirp.data.arrival import opened
from upchirp.data.images.regions import Regions
from upchirp.data.workers.processes import batches_of
from upchirp.machine import hardware, versions


def receive(source: Source, side: int, prepare: Any, seconds: float) -> dict[str, float]:
    """Microseconds an image, its kilobytes, and images of a chunk."""
    run = plan(constant(side), epochs=10_000, dataset_size=len(source), batch_size=1000)
    place = np.zeros(2**25, np.uint8)
    taken = copied = 0.0
    images = chunks = length = 0
    loader = Loader(source, run, workers=1, prepare=prepare)
    slots = loader._fresh.slots()
    parts = opened(batches_of(loader._fresh.data_loader(slots), 0), slots)
    next(parts)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        before = time.thread_time()
        pixels, labels, _ = next(parts)
        between = time.thread_time()
        flat = (pixels.pixels if isinstance(pixels, Regions) else pixels).numpy().reshape(-1)
        place[: len(flat)] = flat
        copied += time.thread_time() - between
        taken += between - before
        images, chunks, length = images + len(labels), chunks + 1, length + len(flat)
    del parts  # ends the worker
    return {
        "taken_us": round(1e6 * taken / images, 1),
        "copied_us": round(1e6 * copied / images, 1),
        "kilobytes": round(length / images / 1e3, 1),
        "images_of_a_chunk": round(images / chunks, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=SAMPLE, help="folder or zip file of JPEGs")
    parser.add_argument("--sides", type=int, nargs="+", default=[96, 160, 224])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        files = image_files(options.images, Path(temporary) / "unpacked")
        source = FolderSource(as_data_folder(files, Path(temporary) / "data") / "train")
        for side, prepare in product(options.sides, ("cpu", "device")):
            about = {"side": side, "prepare": prepare}
            results.append({**about, **receive(source, side, prepare, options.seconds)})
            print(results[-1], file=sys.stderr)
    if options.json:
        about = {"command": shlex.join(["python", *sys.argv]), "hardware": hardware(), "versions": versions()}
        print(json.dumps({**about, "results": results}, indent=1))


if __name__ == "__main__":
    main()
