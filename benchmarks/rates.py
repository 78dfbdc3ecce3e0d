"""Images/s of a plain training step by size and images at once, with cuDNN's trial of its algorithms or without.

One process measures one of the two: cuDNN keeps what it found for a shape. The first step at a shape is given apart.
Example: `python benchmarks/rates.py --cudnn-trial --json`
"""

import argparse
import json
import shlex
import sys
import time
from typing import Any

import timm
import torch
from torch.nn import functional

from upchirp.machine import hardware, versions

MODELS: dict[str, dict[str, Any]] = {
    "resnet50": {},
    "convnext_tiny": {},
    "deit_small_patch16_224": {"dynamic_img_size": True},
}
SHAPES = [(96, 512), (96, 2048), (160, 1024), (224, 256), (224, 512)]


def measure(model: torch.nn.Module, size: int, rows: int, steps: int) -> dict[str, float]:
    """Seconds of the first step, images/s of later ones, and the most memory held in GiB."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    images = torch.randn(rows, 3, size, size, device="cuda").contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (rows,), device="cuda")

    def seconds(count: int) -> float:
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(count):
            optimizer.zero_grad()
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = functional.cross_entropy(model(images).float(), labels)
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize()
        return time.perf_counter() - begun

    torch.cuda.reset_peak_memory_stats()
    first = seconds(1)
    seconds(1)
    rate = rows * steps / seconds(steps)
    return {"first_s": first, "images_per_second": rate, "memory_gib": torch.cuda.max_memory_allocated() / 2**30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", choices=MODELS, nargs="+", default=list(MODELS))
    parser.add_argument("--cudnn-trial", action="store_true", help="let cuDNN try its algorithms")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = options.cudnn_trial
    torch.set_float32_matmul_precision("high")
    results = []
    for name in options.models:
        model = timm.create_model(name, **MODELS[name]).cuda().to(memory_format=torch.channels_last)
        for size, rows in SHAPES:
            result = {"model": name, "cudnn_trial": options.cudnn_trial, "size": size, "rows": rows}
            results.append({**result, **measure(model, size, rows, options.steps)})
            print(results[-1], file=sys.stderr)
    if options.json:
        about = {"command": shlex.join(["python", *sys.argv]), "hardware": hardware(), "versions": versions()}
        print(json.dumps({**about, "results": results}))


if __name__ == "__main__":
    main()
