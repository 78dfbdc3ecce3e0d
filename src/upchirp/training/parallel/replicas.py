"""A model that every rank holds a copy of: the same weights and statistics everywhere after each step."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from upchirp.models import has_unused_parameters
from upchirp.training.parallel.ranks import Ranks


class Replicas:
    """Forward passes whose gradients `DistributedDataParallel` sums over the ranks, while backward passes still run.

    One rank alone calls the model as it is. Optimizer, average and checkpoints keep to the plain module, so all of them
    know the same names and parameters on any number of ranks.

    Args:
        model: the plain module.
        forward: the same, perhaps compiled.
        ranks: who holds a copy.
        deterministic: take the same sums in the same order however often the model is wrapped anew.
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
        """Whether there are other ranks to sum gradients with."""
        return self._ranks.size > 1

    def __call__(self, shown: Any) -> Any:
        """What the model returns for images (N, 3, B, B), or for what else a task shows it."""
        return self._forward(shown) if self._wrapped is None else self._wrapped(shown)

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[float]:
        """One micro-batch, forward and backward; with the last one of a step the gradients are summed over the ranks.

        Gives the factor that the loss needs, as DDP takes means: a rank's loss is its share of the global batch's.
        """
        with nullcontext() if self._wrapped is None or last else self._wrapped.no_sync():
            yield float(self._ranks.size)


def average_statistics(models: Iterable[nn.Module], ranks: Ranks) -> None:
    """Replace the running statistics of batch norms by their means over the ranks."""
    if ranks.size > 1:
        modules = (module for model in models for module in model.modules())
        norms = [module for module in modules if isinstance(module, _NormBase)]
        ranks.average([value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None])


class _Forward(nn.Module):
    """What DDP is shown of a model: the parameters it trains, and no buffers, which DDP would handle in its own way."""

    def __init__(self, trained: list[nn.Parameter], forward: Callable[[Any], Any]) -> None:
        super().__init__()
        self.trained = nn.ParameterList(trained)
        self._forward = (forward,)  # in a tuple, or a module in it would count as a part of this one

    def forward(self, shown: Any) -> Any:
        return self._forward[0](shown)
