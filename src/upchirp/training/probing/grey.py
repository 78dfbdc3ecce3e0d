"""Batches to try a device with: what training takes there does not depend on what the images show."""

import torch

from upchirp.curriculum import Step
from upchirp.data import RGB, Batch, Channels


def grey_batch(
    step: Step, rows: range, side: int, channels: Channels = RGB, device: torch.device | str = "cpu"
) -> Batch:
    """Grey images of side `side` for some rows of a step, as the loader gives them; the last of the step."""
    shape, dtype = (len(rows), side, side, channels.count), getattr(torch, channels.type)
    images = torch.full(shape, 128, dtype=dtype, device=device).permute(0, 3, 1, 2)
    labels = torch.zeros(len(rows), dtype=torch.int64, device=device)
    return Batch(images, labels, step, rows, torch.arange(len(rows)))
