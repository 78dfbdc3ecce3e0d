"""The number format of mixed precision, by what a device has instructions for."""

from dataclasses import replace

import torch

from upchirp.models import computes
from upchirp.training.recipes.recipe import Optimization


def with_amp_dtype(optimization: Optimization, device: torch.device, *, scaled: bool = True) -> Optimization:
    """With the number format of mixed precision that the device has instructions for, where it was left open.

    float16 is none of these unless the loss is `scaled`.

    >>> with_amp_dtype(Optimization(amp_dtype="bfloat16"), torch.device("cpu")).amp_dtype
    'bfloat16'
    """
    if optimization.amp_dtype != "auto":
        return optimization
    if computes(device, torch.bfloat16):
        return replace(optimization, amp_dtype="bfloat16")
    return replace(optimization, amp_dtype="float16" if scaled and computes(device, torch.float16) else "float32")


def autocast_dtype(optimization: Optimization, device: torch.device) -> torch.dtype | None:
    """The number format of mixed precision, if it is on."""
    name = with_amp_dtype(optimization, device).amp_dtype
    return getattr(torch, name) if optimization.amp and name != "float32" else None


def fast_autocast_dtype(optimization: Optimization, device: torch.device) -> torch.dtype | None:
    """The same for an evaluation, which may be on another device than the training was: none that it emulates."""
    dtype = autocast_dtype(optimization, device)
    return dtype if dtype is not None and computes(device, dtype) else None


def amp_note(asked: Optimization, optimization: Optimization, device: torch.device) -> list[str]:
    """A line on mixed precision that is not the usual, or that the device is slow at."""
    dtype = autocast_dtype(optimization, device)
    if dtype is not None and not computes(device, dtype):
        return [
            f"this {device.type.upper()} has no instructions for {optimization.amp_dtype} and emulates it, many times "
            "slower than float32: `amp=False` trains in that"
        ]
    if asked.amp_dtype != "auto" or not optimization.amp or optimization.amp_dtype == "bfloat16":
        return []
    return [f"trained in {optimization.amp_dtype}: this {device.type.upper()} has no instructions for bfloat16"]
