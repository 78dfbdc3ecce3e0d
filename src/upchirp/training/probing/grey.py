"""Batches to try a device with: what training takes there does not depend on what the images show."""

import torch

from upchirp.curriculum import Step
from upchirp.data import Batch


def grey_batch(step: Step, rows: range, side: int, device: torch.device | str = "cpu") -> Batch:
    """Grey images of side `side` for some rows of a step, as the loader gives them; the last of the step."""
    images = torch.full((len(rows), side, side, 3), 128, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    labels = torch.zeros(len(rows), dtype=torch.int64, device=device)
    return Batch(images, labels, step, rows, torch.arange(len(rows)))
