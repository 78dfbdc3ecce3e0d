"""Compiled models: one graph for each shape of input."""

from typing import Any

import torch
from torch import nn


class GraphPerShape:
    """A model compiled with static shapes: one graph for each shape of input, however many there are.

    Graphs belong to the model's code, not to one model: copies of it share them. torch stops compiling a function after
    eight graphs, so each shape that a model meets first allows the process one more.

    >>> forward = GraphPerShape(nn.Conv2d(3, 8, 3))  # compiles nothing yet
    >>> forward.shapes
    set()
    """

    def __init__(self, model: nn.Module) -> None:
        self.shapes: set[tuple[torch.Size, ...]] = set()
        self._compiled = torch.compile(model, dynamic=False)

    def __call__(self, shown: Any) -> Any:
        """What the model returns for images (N, 3, B, B), or for a tuple of tensors that a task shows it."""
        shapes = tuple(each.shape for each in (shown if isinstance(shown, tuple) else (shown,)))
        if shapes not in self.shapes:
            self.shapes.add(shapes)
            config: Any = torch._dynamo.config
            # torch 2.6 knows the older name only.
            limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
            for name in (limit, f"accumulated_{limit}"):
                setattr(config, name, getattr(config, name) + 1)
        return self._compiled(shown)
