"""A model that runs out of memory."""

from typing import Any, Literal

import torch
from torch import nn


class _FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor) -> torch.Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has no more.")


class Hungry(nn.Module):
    """Batch norm and dropout, and too little memory for more than `limit` images of `side` pixels or more."""

    def __init__(
        self, *, limit: int = 1000, side: int = 0, spared: int = 0, where: Literal["forward", "backward"] = "forward"
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 2))
        self.limit = limit
        self.side = side
        self.spared = spared
        self.where = where
        self.seen: list[tuple[int, int]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return self.head(self.body(images))
        rows, side = images.shape[0], images.shape[-1]
        self.seen.append((rows, side))
        features = self.body(images)
        if rows > self.limit and side >= self.side:
            self.spared -= 1
            if self.spared < 0:
                if self.where == "forward":
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has no more.")
                features = _FailsBackward.apply(features)
        return self.head(features)
