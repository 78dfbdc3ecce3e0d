"""What a training step costs in each number format of mixed precision on this device, and which one `auto` takes.

Forward and backward passes of one batch in memory, the formats in turn, `--rounds` times. Example:
`python benchmarks/precision.py --batch-size 32 --rounds 5`
"""

import argparse
import json
import shlex
import sys
from statistics import median
from typing import Any

import timm
import torch
from torch import nn

from upchirp import autocast
from upchirp.machine import hardware, versions
from upchirp.models import computes
from upchirp.training import Optimization
from upchirp.training.parallel.device import choose_device
from upchirp.training.recipes.precision import with_amp_dtype
from upchirp.training.run.spent import Clock

MODELS: dict[str, dict[str, Any]] = {
    "resnet10t": {},
    "deit_tiny_patch16_224": {"patch_size": 8, "img_size": 64},
    "convnext_atto": {},
}
SIZE = 64
FORMATS = {"float32": None, "bfloat16": torch.bfloat16}


def seconds(model: nn.Module, images: torch.Tensor, dtype: torch.dtype | None) -> float:
    """One forward and backward pass."""
    clock = Clock()
    with autocast(images.device, dtype):
        outputs = model(images)
    outputs.float().square().mean().backward()
    if images.is_cuda:
        torch.cuda.synchronize()
    return clock.lap()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", choices=MODELS, nargs="+", default=list(MODELS))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = choose_device(None)
    found = {}
    for name in options.models:
        model = timm.create_model(name, **MODELS[name]).to(device, memory_format=torch.channels_last)
        images = torch.randn(options.batch_size, 3, SIZE, SIZE, device=device).to(memory_format=torch.channels_last)
        taken: dict[str, list[float]] = {name: [] for name in FORMATS}
        for _ in range(1 + options.rounds):
            for each, dtype in FORMATS.items():
                taken[each].append(seconds(model, images, dtype))
        # The first round makes the kernels.
        found[name] = {each: median(times[1:]) for each, times in taken.items()}
        found[name]["bfloat16 / float32"] = found[name]["bfloat16"] / found[name]["float32"]
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 in hardware": computes(device, torch.bfloat16),
        "auto": with_amp_dtype(Optimization(), device).amp_dtype,
        "hardware": hardware(),
        "versions": versions(),
    }
    print(json.dumps({**about, "seconds": found}, indent=1))


if __name__ == "__main__":
    main()
