"""The protocol of a training state on several ranks: all that the rest of the package asks of it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from upchirp.training.checkpoints.checkpoint import Loaded
from upchirp.training.parallel.ranks import Ranks

if TYPE_CHECKING:
    from upchirp.training.parallel.state import State


class Passes(Protocol):
    """Forward and backward passes of one model, whose gradients are summed over the ranks."""

    @property
    def sums(self) -> bool:
        """Whether a rank's last backward pass of a step waits for other ranks, while its other passes wait for none."""

    def fit_to(self, bandwidth: int) -> None:
        """Get ready for a model that has been resized for a bandwidth."""

    def __call__(self, shown: Any) -> Any:
        """What the model returns for images (N, 3, B, B), or for what else a task shows it."""

    def micro_batch(self, *, last: bool) -> AbstractContextManager[float]:
        """One micro-batch, forward and backward; with the last one of a step the gradients are summed over the ranks.

        Gives the factor that the loss needs: a rank's loss is its share of the global batch's.
        """


class Writer(Protocol):
    """Writes checkpoints, one at a time, and tells of each that is there. All ranks call its methods together."""

    @property
    def busy(self) -> bool:
        """Whether this rank still writes."""

    @property
    def pending(self) -> bool:
        """Whether a checkpoint is begun that is not there yet, on any rank."""

    def begin(self, state: "State", content: dict[str, Any], path: Path) -> None:
        """Write a state with what belongs to it: it is a checkpoint now, or when `finish` is called."""

    def finish(self) -> None:
        """Wait for what is being written while training goes on, if anything is, and make it a checkpoint.

        Raises:
            OSError: it could not be written.
        """


class Parallel(Protocol):
    """How ranks hold a training state: `Alone`, `Replicated` (whole copies), or `Sharded` (parts)."""

    ranks: Ranks
    """Who trains."""
    fused: bool
    """Whether torch's kernels that update many parameters at once take them all."""
    may_redo: bool
    """Whether a rank may repeat a step's passes by itself when its memory runs out."""
    in_step: bool
    """Whether all ranks must call the model equally often, in evaluations too."""
    deterministic: bool
    """Whether a run that was interrupted ends with the same bits: then statistics are averaged after every step."""

    def place(self, model: nn.Module, device: torch.device, *, channels_last: bool) -> nn.Module:
        """The model on its device, with the first rank's values on every rank."""

    def share_out(self, modules: Sequence[nn.Module], bandwidths: Collection[int], device: torch.device) -> None:
        """Let each rank keep what it is to hold of a model that takes so many bandwidths, and of copies of it.

        Raises:
            InputError: torch is too old.
        """

    def arrange(self, optimizer: torch.optim.Optimizer) -> None:
        """Sort an optimizer's parameters into groups that are updated at once."""

    def passes(self, model: nn.Module, forward: Callable[[Any], Any] | None = None) -> Passes:
        """Passes through a model, or through a compiled `forward` of it."""

    def resize(
        self, model: nn.Module, bandwidth: int, *, optimizer: torch.optim.Optimizer | None, ema: ModelEmaV3 | None
    ) -> None:
        """Fit model, moments and average to a bandwidth; see `upchirp.fit_to_bandwidth`."""

    def at_sizes(self, models: Sequence[tuple[nn.Module, int]], current: int) -> Iterator[list[nn.Module]]:
        """Models that take inputs of side `current` now, each ready for the side beside it.

        They come in order, in groups that can be used at the same time; until the next group is asked for.
        """

    def clip(self, state: "State", parameters: Sequence[Tensor], most: float) -> None:
        """Scale all gradients so that their common norm is at most `most`."""

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as a whole on the first rank; what other ranks get is of no use. All ranks call it together."""

    def writer(self, written: Callable[[Path], None]) -> Writer:
        """Writes this training's checkpoints; `written` is called with each, on all ranks."""

    def restore(self, state: "State", loaded: Loaded) -> None:
        """Put a checkpoint's state into a state of the same model and recipe.

        Raises:
            InputError: it is of another model or recipe, or was written by ranks that held it in another way.
        """


def other_way(loaded: Loaded) -> str:
    """What to say of a checkpoint whose ranks held their model in another way."""
    return f"{loaded.path} was written with another `parallel`: go on with the run's own"
