"""States that each rank holds whole: one process alone, and replicas, whose gradients are summed."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from upchirp.errors import InputError
from upchirp.models import at_size, fit_to_bandwidth
from upchirp.training.checkpoints import checkpoint
from upchirp.training.parallel.parallel import Passes, Writer, other_way
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.replicas import Replicas, average_statistics
from upchirp.training.parallel.state import State


class Alone:
    """One process that holds everything; see `Parallel` for the methods."""

    fused = True
    may_redo = True
    in_step = False
    deterministic = False

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()

    def place(self, model: nn.Module, device: torch.device, *, channels_last: bool) -> nn.Module:
        """The model on its device, with the first rank's values on every rank."""
        model = model.to(device)
        if channels_last:
            model = model.to(memory_format=torch.channels_last)
        self.ranks.copy_first(model.state_dict().values())
        return model

    def share_out(self, modules: Sequence[nn.Module], bandwidths: Collection[int], device: torch.device) -> None:
        """Nothing: all of it is kept."""

    def arrange(self, optimizer: torch.optim.Optimizer) -> None:
        """Nothing: all parameters are of one kind."""

    def passes(self, model: nn.Module, forward: Callable[[Any], Any] | None = None) -> Passes:
        """Passes through a model, or through a compiled `forward` of it."""
        return _Plain(forward or model)

    def resize(
        self, model: nn.Module, bandwidth: int, *, optimizer: torch.optim.Optimizer | None, ema: ModelEmaV3 | None
    ) -> None:
        """Fit model, moments and average to a bandwidth."""
        fit_to_bandwidth(model, bandwidth, optimizer=optimizer, ema=ema)

    def at_sizes(self, models: Sequence[tuple[nn.Module, int]], current: int) -> Iterator[list[nn.Module]]:
        """All models at once: copies where they are of another side."""
        with ExitStack() as stack:
            yield [stack.enter_context(at_size(model, size)) for model, size in models]

    def clip(self, state: State, parameters: Sequence[Tensor], most: float) -> None:
        """Scale all gradients so that their common norm is at most `most`."""
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(parameters, most)

    def average_statistics(self, *models: nn.Module) -> None:
        """Nothing: there is one rank's only."""

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, which are whole."""
        return dict(tensors)

    def writer(self) -> Writer:
        """Writes at once."""
        return _WriterAtOnce(self.ranks)

    def restore(self, state: State, loaded: checkpoint.Loaded) -> None:
        """Put a checkpoint's state into a state of the same model and recipe."""
        if checkpoint.PARTS in loaded.content:
            raise InputError(other_way(loaded))
        state.load_state_dict(loaded.content["state"])


class Replicated(Alone):
    """Ranks that each hold everything, with the same weights after every step, as their gradients are summed (DDP).

    Args:
        ranks: who holds a copy.
        deterministic: take the same sums in the same order however often the model is wrapped anew, or a run begins.
    """

    def __init__(self, ranks: Ranks, *, deterministic: bool = False) -> None:
        super().__init__(ranks)
        self.deterministic = deterministic

    def passes(self, model: nn.Module, forward: Callable[[Any], Any] | None = None) -> Passes:
        """Passes through a model, or through a compiled `forward` of it."""
        return Replicas(model, forward or model, self.ranks, deterministic=self.deterministic)

    def average_statistics(self, *models: nn.Module) -> None:
        """Give all ranks the mean of what their batch norms counted."""
        average_statistics(models, self.ranks)


class _Plain:
    """Passes whose gradients nobody else needs."""

    sums = False

    def __init__(self, forward: Callable[[Any], Any]) -> None:
        self._forward = forward

    def fit_to(self, bandwidth: int) -> None:
        pass

    def __call__(self, shown: Any) -> Any:
        return self._forward(shown)

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[float]:
        yield 1.0


class _WriterAtOnce:
    """Lets the first rank write, while the others go on."""

    busy = False
    pending = False

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def begin(self, state: State, content: dict[str, Any], path: Path) -> Path | None:
        if self._ranks.is_first:
            checkpoint.save({"state": state.state_dict(), **content}, path)
        return path

    def finish(self) -> Path | None:
        return None
