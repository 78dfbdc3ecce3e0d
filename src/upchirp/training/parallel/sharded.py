"""Ranks that each hold a part of the state (FSDP2), for models that outgrow a device."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from upchirp.errors import InputError
from upchirp.models import fit_to_tried, resized_parameters
from upchirp.training.checkpoints.checkpoint import PARTS, Loaded
from upchirp.training.parallel import part_files
from upchirp.training.parallel.parallel import Passes, Writer, other_way
from upchirp.training.parallel.parts import Parts, clip_gradients, is_available, share_out, split_groups
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.replicas import average_statistics
from upchirp.training.parallel.state import State


class Sharded:
    """Ranks that each hold a part of the state; see `Parallel` for the methods.

    Args:
        ranks: who holds a part.
        deterministic: let a run that was interrupted end with the same bits.
    """

    # torch has no fused update of parts for all optimizers, and none for their average.
    fused = False
    # All gather parameters in every pass.
    may_redo = False
    in_step = True

    def __init__(self, ranks: Ranks, *, deterministic: bool = False) -> None:
        self.ranks = ranks
        self.deterministic = deterministic

    def place(self, model: nn.Module, device: torch.device, *, channels_last: bool) -> nn.Module:
        """The model on its device; FSDP takes no parameters in another memory order."""
        model = model.to(device)
        self.ranks.copy_first(model.state_dict().values())
        return model

    def share_out(self, modules: Sequence[nn.Module], bandwidths: Collection[int], device: torch.device) -> None:
        """Let each rank keep its part, and all of what is resized when the bandwidth changes."""
        if not is_available():
            raise InputError("`parallel='fsdp'` needs torch 2.7 or later: update it, or leave it out")
        resized = resized_parameters(modules[0], bandwidths)
        for module in modules:
            share_out(module, resized, device, self.ranks)

    def arrange(self, optimizer: torch.optim.Optimizer) -> None:
        """Give shares and whole parameters groups of their own."""
        split_groups(optimizer)

    def passes(self, model: nn.Module, forward: Callable[[Any], Any] | None = None) -> Passes:
        """Passes through a model that is shared out."""
        return Parts(model, self.ranks)

    def resize(
        self, model: nn.Module, bandwidth: int, *, optimizer: torch.optim.Optimizer | None, ema: ModelEmaV3 | None
    ) -> None:
        """Fit model, moments and average to a bandwidth, without trying it on a copy, which cannot be made."""
        fit_to_tried(model, bandwidth, optimizer=optimizer, ema=ema)

    def at_sizes(self, models: Sequence[tuple[nn.Module, int]], current: int) -> Iterator[list[nn.Module]]:
        """Those of one size together, in place: there is no room for copies."""
        for size, group in groupby(models, key=lambda each: each[1]):
            of_size = [model for model, _ in group]
            with ExitStack() as fitted:
                for model in of_size:
                    fitted.enter_context(_fitted_to(model, current, size))
                yield of_size

    def clip(self, state: State, parameters: Sequence[Tensor], most: float) -> None:
        """Scale all gradients so that their common norm over all ranks is at most `most`."""
        clip_gradients(parameters, most, self.ranks)

    def average_statistics(self, *models: nn.Module) -> None:
        """Give all ranks the mean of what their batch norms counted."""
        average_statistics(models, self.ranks)

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors gathered on the first rank's host."""
        whole = ((name, each.full_tensor() if isinstance(each, DTensor) else each) for name, each in tensors.items())
        return {name: each.cpu() for name, each in whole if self.ranks.is_first}

    def writer(self) -> Writer:
        """Lets every rank write its part while training goes on."""
        return part_files.Writer(self.ranks)

    def restore(self, state: State, loaded: Loaded) -> None:
        """Fill a state with its parts, which any number of ranks wrote."""
        if PARTS not in loaded.content:
            raise InputError(other_way(loaded))
        position = loaded.content["state"]
        state.prepare(part_files.stored_tensors(loaded.path), position["bandwidth"])
        part_files.read(state.tensors(), loaded.path)
        state.load_position(position)


@contextmanager
def _fitted_to(model: nn.Module, current: int, size: int) -> Iterator[None]:
    """Let a model take inputs of another side for a while."""
    if current == size:
        yield
        return
    whole = {name: value.detach().clone() for name, value in model.named_parameters() if not isinstance(value, DTensor)}
    fit_to_tried(model, size)
    try:
        yield
    finally:
        fit_to_tried(model, current)
        with torch.no_grad():
            for name, value in whole.items():
                model.get_parameter(name).copy_(value)
