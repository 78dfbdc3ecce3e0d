"""Milliseconds of the loader's Lanczos on one core, and its fidelity, by way: sums of rows, torch's own, Pillow's.

The first is for versions of torch that have no Lanczos. Times are of one image, medians of the rounds, alternating
within one run. Fidelity is AC error and leakage as in `benchmarks/loader.py`, of the path `fast`.

Example: `python benchmarks/resizing.py`
"""

import argparse
import json
import sys
import tempfile
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from PIL import Image

from loader import SAMPLE, fidelity, image_files
from upchirp.data.images import resizing
from upchirp.data.images.decoding import Pixels
from upchirp.machine import hardware, versions

SIZES = ((260, 300, 96), (260, 300, 160), (260, 300, 224), (80, 80, 64))
CALLS = 20


def pillow(pixels: Pixels, side: int) -> Pixels:
    return np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))


def own(by_torch: bool) -> Callable[[Pixels, int], Pixels]:
    lanczos = resizing.lanczos

    def resize(pixels: Pixels, side: int) -> Pixels:
        with mock.patch.object(resizing, "_TORCH_HAS_LANCZOS", by_torch):
            return lanczos(pixels, side)

    return resize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=SAMPLE, help="folder or zip file of JPEGs")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    ways = {"rows": own(False), "pillow": pillow}
    if resizing._torch_has_lanczos():
        ways["torch"] = own(True)
    result: dict[str, Any] = {"milliseconds": {}, "fidelity": {}}
    for height, width, side in SIZES:
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, resize in ways.items():
                taken = timeit.timeit(partial(resize, pixels, side), number=CALLS)
                seconds[name].append(taken / CALLS)
        result["milliseconds"][f"{height}x{width} to {side}"] = {
            name: 1000 * median(taken) for name, taken in seconds.items()
        }
    with tempfile.TemporaryDirectory() as temporary:
        files = image_files(options.images, Path(temporary))
        for name, resize in ways.items():
            with mock.patch.object(resizing, "lanczos", resize):
                result["fidelity"][name] = {side: figures["fast"] for side, figures in fidelity(files).items()}
    result |= {
        "command": " ".join(["python", "benchmarks/resizing.py", *sys.argv[1:]]),
        "hardware": hardware(),
        "versions": versions(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
