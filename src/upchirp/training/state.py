"""The state of a training: all that a segment changes and a checkpoint holds."""

from dataclasses import dataclass
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from upchirp.errors import InputError
from upchirp.models import fit_to_bandwidth


@dataclass(kw_only=True)
class State:
    """Model, optimizer, average, scaler and position."""

    model: nn.Module
    """The trained module, not compiled."""
    optimizer: torch.optim.Optimizer
    """Bound to the model's parameters."""
    ema: ModelEmaV3 | None
    """Average of the weights, if the recipe keeps one."""
    scaler: torch.amp.GradScaler
    """Loss scaling; disabled unless mixed precision is float16."""
    bandwidth: int
    """The input side that model, moments and average have now."""
    step: int = 0
    """Optimizer steps done."""

    def fit_to(self, bandwidth: int) -> None:
        """Resize what depends on the input size: parameters, moments and average together."""
        if bandwidth != self.bandwidth:
            fit_to_bandwidth(self.model, bandwidth, optimizer=self.optimizer, ema=self.ema)
            self.bandwidth = bandwidth

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it loads with `weights_only=True`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "scaler": self.scaler.state_dict(),
            "bandwidth": self.bandwidth,
            "step": self.step,
        }

    def is_finite(self) -> bool:
        """Whether all weights are finite; an infinite gradient can spoil them under a finite loss."""
        modules = [self.model] if self.ema is None else [self.model, self.ema.module]
        tensors = [value for module in modules for value in module.state_dict().values() if value.is_floating_point()]
        return not tensors or bool(torch.isfinite(torch.stack(torch._foreach_norm(tensors))).all())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state of the same model and recipe.

        Raises:
            InputError: a state of another model or recipe.
        """
        self.fit_to(state["bandwidth"])
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"the checkpoint belongs to another model or recipe: {first}") from error
        self.step = state["step"]
