"""The state of a training: all that a segment changes and a checkpoint holds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase

from upchirp.errors import InputError, first_line
from upchirp.training.checkpoints.checkpoint import Loaded
from upchirp.training.parallel.parallel import Parallel
from upchirp.training.parallel.ranks import Ranks

Counted = TypeVar("Counted")


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
    parallel: Parallel
    """How the ranks hold all this."""
    transforms: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    """Transforms of batches that learn with the model, or hold what a checkpoint is to keep."""

    def fit_to(self, bandwidth: int) -> None:
        """Resize what depends on the input size: parameters, moments and average together."""
        if bandwidth != self.bandwidth:
            self.parallel.resize(self.model, bandwidth, optimizer=self.optimizer, ema=self.ema)
            self.bandwidth = bandwidth

    def average_statistics(self) -> None:
        """Let all ranks hold the mean of what their batch norms counted, before it is read; all call it together."""
        if not self.parallel.deterministic:
            average_statistics([self.model] if self.ema is None else [self.model, self.ema.module], self.parallel.ranks)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it loads with `weights_only=True`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            **({"transforms": self.transforms.state_dict()} if self.transforms else {}),
            **self.position(),
        }

    def position(self) -> dict[str, Any]:
        """The plain values of the state: loss scaling, bandwidth and step."""
        return {"scaler": self.scaler.state_dict(), "bandwidth": self.bandwidth, "step": self.step}

    def load_position(self, position: Mapping[str, Any]) -> None:
        """Take over the plain values, when the tensors are here already."""
        self.scaler.load_state_dict(position["scaler"])
        self.step = position["step"]

    def is_finite(self) -> bool:
        """Whether all weights are finite on every rank, which call it together.

        An infinite gradient can spoil them under a finite loss.
        """
        self.average_statistics()
        modules = [self.transforms, self.model, *([] if self.ema is None else [self.ema.module])]
        values = (local(value) for module in modules for value in module.state_dict().values())
        tensors = [value for value in values if value.is_floating_point() and value.numel()]
        finite = not tensors or bool(torch.isfinite(torch.stack(torch._foreach_norm(tensors))).all())
        # A rank may hold a part only, and sees no further.
        return not any(self.parallel.ranks.largest(int(not finite)))

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
            self.transforms.load_state_dict(state.get("transforms", {}))
            self.load_position(state)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"the checkpoint belongs to another model or recipe: {first_line(error)}") from error


def go_on_from(loaded: Loaded, state: State, counted: Callable[[Mapping[str, Any]], Counted]) -> Counted:
    """Put a checkpoint into a state of the same model and recipe; returns what `counted` reads beside it.

    Raises:
        InputError: it belongs to another model or recipe, or is none of a training.
    """
    try:
        state.parallel.restore(state, loaded)
        return counted(loaded.content)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{loaded.path} holds no training state of upchirp: {error!r}") from error


def average_statistics(models: Iterable[nn.Module], ranks: Ranks) -> None:
    """Give all ranks the mean of what their batch norms counted, which is needed before anything reads it.

    It enters no loss of a training, and running means are linear in what they are made of: averaged late, they are the
    same but for rounding.
    """
    if ranks.size > 1:
        modules = (module for model in models for module in model.modules())
        norms = [module for module in modules if isinstance(module, _NormBase)]
        ranks.average([value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None])


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
