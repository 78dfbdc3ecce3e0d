"""States that each rank holds whole: one process alone, and replicas, whose gradients are summed."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from upchirp.errors import InputError
from upchirp.models import at_size, fit_to_bandwidth, has_unused_parameters
from upchirp.training.checkpoints import checkpoint
from upchirp.training.parallel.parallel import Passes, Writer, other_way
from upchirp.training.parallel.ranks import Ranks
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
        return _Whole(model, forward or model, self.ranks, deterministic=self.deterministic)

    def resize(
        self, model: nn.Module, bandwidth: int, *, optimizer: torch.optim.Optimizer | None, ema: ModelEmaV3 | None
    ) -> None:
        fit_to_bandwidth(model, bandwidth, optimizer=optimizer, ema=ema)

    def at_sizes(self, models: Sequence[tuple[nn.Module, int]], current: int) -> Iterator[list[nn.Module]]:
        """All models at once: copies where they are of another side."""
        with ExitStack() as stack:
            yield [stack.enter_context(at_size(model, size)) for model, size in models]

    def clip(self, state: State, parameters: Sequence[Tensor], most: float) -> None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(parameters, most)

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(tensors)

    def writer(self, written: Callable[[Path], None]) -> Writer:
        return _WriterAtOnce(self.ranks, written)

    def restore(self, state: State, loaded: checkpoint.Loaded) -> None:
        if checkpoint.PARTS in loaded.content:
            raise InputError(other_way(loaded))
        state.load_state_dict(loaded.content["state"])


class Replicated(Alone):
    """Ranks that each hold everything, with the same weights after every step, as their gradients are summed (DDP).

    With `sync_bn` batch norms count the images of all ranks, for which these wait for each other in each of them.
    """

    def __init__(self, ranks: Ranks, *, deterministic: bool = False, sync_bn: bool = False) -> None:
        super().__init__(ranks)
        self.deterministic = deterministic
        self._sync_bn = sync_bn
        # A rank that repeats a pass by itself would wait for the others for ever.
        self.may_redo = not sync_bn

    def share_out(self, modules: Sequence[nn.Module], bandwidths: Collection[int], device: torch.device) -> None:
        """Nothing is shared out; the batch norms of what is trained, not of its average, come to count together."""
        if self._sync_bn:
            convert_sync_batchnorm(modules[0])  # type: ignore[no-untyped-call]


class _Whole:
    """Forward passes whose gradients `DistributedDataParallel` sums over the ranks, while backward passes still run.

    One rank alone has nothing to sum, and its model is not wrapped.

    Optimizer, average and checkpoints keep to the plain module, so all of them know the same names and parameters on
    any number of ranks.
    """

    def __init__(self, model: nn.Module, forward: Callable[[Any], Any], ranks: Ranks, *, deterministic: bool):
        self._model = model
        self._forward = forward
        self._ranks = ranks
        self._deterministic = deterministic
        self._wrapped: DistributedDataParallel | None = None
        self._wrapped_for: Any = None
        self._fitted = 0, 0

    def fit_to(self, bandwidth: int) -> None:
        """Wrap the model anew if its parameters, or those that are trained or used, are others at a bandwidth."""
        if self._ranks.size == 1:
            return
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        if (bandwidth, len(trained)) == self._fitted:
            return
        self._fitted = bandwidth, len(trained)
        unused = has_unused_parameters(self._model, bandwidth)
        wanted = [[parameter.shape for parameter in trained], unused]
        if wanted != self._wrapped_for:
            self._wrapped = DistributedDataParallel(
                _Forward(trained, self._forward),
                gradient_as_bucket_view=True,
                # DDP sorts its buckets anew after the first backward pass, unless it looks for unused parameters. A run
                # that goes on would do so at another step, and take its sums in another order.
                find_unused_parameters=unused or self._deterministic,
            )
            self._wrapped_for = wanted

    @property
    def sums(self) -> bool:
        return self._ranks.size > 1

    def __call__(self, shown: Any) -> Any:
        return self._forward(shown) if self._wrapped is None else self._wrapped(shown)

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[float]:
        with nullcontext() if self._wrapped is None or last else self._wrapped.no_sync():
            # DDP takes means, and a rank's loss is its share of the global batch's.
            yield float(self._ranks.size)


class _Forward(nn.Module):
    """What DDP is shown of a model: the parameters it trains, and no buffers, which DDP would handle in its own way."""

    def __init__(self, trained: list[nn.Parameter], forward: Callable[[Any], Any]) -> None:
        super().__init__()
        self.trained = nn.ParameterList(trained)
        self._forward = (forward,)  # in a tuple, or a module in it would count as a part of this one

    def forward(self, shown: Any) -> Any:
        return self._forward[0](shown)


class _WriterAtOnce:
    """Lets the first rank write, while the others go on."""

    busy = False
    pending = False

    def __init__(self, ranks: Ranks, written: Callable[[Path], None]) -> None:
        self._ranks = ranks
        self._written = written

    def begin(self, state: State, content: dict[str, Any], path: Path) -> None:
        if self._ranks.is_first:
            checkpoint.save({"state": state.state_dict(), **content}, path)
        self._written(path)

    def finish(self) -> None:
        """Nothing: what was begun is written."""
