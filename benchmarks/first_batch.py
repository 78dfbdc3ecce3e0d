"""How soon loader workers give the first batch, how evenly the others come, and images per second, by micro-batch.

Nothing trains: batches are taken as fast as they come. `first` is the time to the first batch, the start of the workers
included; `longest` the longest wait for one of the batches after it; `rate` counts all images over all of the time.

Example: `python benchmarks/first_batch.py --workers 2`
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from loader import SAMPLE, as_data_folder, image_files
from upchirp import Loader, constant, plan
from upchirp.data import FolderSource, Source
from upchirp.machine import hardware, versions

MICRO_BATCHES = (64, 512, 2048)
IMAGES = 8192
"""At least so many are loaded, and three batches."""


def measure(source: Source, side: int, micro_batch: int, workers: int, images: int) -> dict[str, float]:
    count = max(images // micro_batch, 3)
    run = plan(constant(side), epochs=(count + 4) * 2048 / len(source), dataset_size=len(source), batch_size=2048)
    started = time.perf_counter()
    batches: Iterator[Any] = iter(Loader(source, run, workers=workers, micro_batch=micro_batch))
    arrived = []
    for _ in range(count):
        next(batches)
        arrived.append(time.perf_counter() - started)
    waits = [later - earlier for earlier, later in pairwise(arrived)]
    return {"first": arrived[0], "longest": max(waits), "rate": count * micro_batch / arrived[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=SAMPLE, help="folder or zip file of JPEGs")
    parser.add_argument("--bandwidths", type=int, nargs="+", default=[96, 224])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--count", type=int, default=IMAGES, help="images of a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        found = image_files(options.images, root / "unpacked")
        source = FolderSource(as_data_folder(found, root / "data") / "train")
        for side in options.bandwidths:
            for micro_batch in MICRO_BATCHES:
                rounds = [
                    measure(source, side, micro_batch, options.workers, options.count) for _ in range(options.rounds)
                ]
                figures = {name: median(each[name] for each in rounds) for name in rounds[0]}
                result.setdefault(str(side), {})[str(micro_batch)] = figures
                print(side, micro_batch, figures, file=sys.stderr)
    result |= {
        "command": " ".join(["python", "benchmarks/first_batch.py", *sys.argv[1:]]),
        "hardware": hardware(),
        "versions": versions(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
