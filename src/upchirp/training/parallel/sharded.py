"""Ranks that each hold a part of the state (FSDP2), for models that outgrow a device."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from upchirp.errors import InputError
from upchirp.models import fit_to_tried, resized_parameters
from upchirp.training.checkpoints.checkpoint import PARTS, Loaded
from upchirp.training.parallel import part_files
from upchirp.training.parallel.parallel import Passes, Writer, other_way
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.state import State, local


class Sharded:
    """Ranks that each hold a part of the state; see `Parallel` for the methods."""

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
        mesh = init_device_mesh(device.type, (self.ranks.size,))
        for module in modules:
            kept = {module.get_parameter(name) for name in resized}
            # Block by block, then what is left.
            for part in [*reversed(list(_blocks(module))), module]:
                fully_shard(part, mesh=mesh, ignored_params=kept)

    def arrange(self, optimizer: torch.optim.Optimizer) -> None:
        """Give shares and whole parameters groups of their own: an update takes many of one kind at once."""
        groups = []
        for group in optimizer.param_groups:
            for sharded in (True, False):
                if parameters := [each for each in group["params"] if isinstance(each, DTensor) is sharded]:
                    groups.append({**group, "params": parameters})
        optimizer.param_groups[:] = groups

    def passes(self, model: nn.Module, forward: Callable[[Any], Any] | None = None) -> Passes:
        return _Parts(model, self.ranks)

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

    @torch.no_grad()
    def clip(self, state: State, parameters: Sequence[Tensor], most: float) -> None:
        gradients = [each.grad for each in parameters if each.grad is not None]
        parts = [local(each) for each in gradients if isinstance(each, DTensor)]
        whole = [each for each in gradients if not isinstance(each, DTensor)]
        squares = self.ranks.add(_square(parts, gradients[0].device)) + _square(whole, gradients[0].device)
        factor = (most / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([local(each) for each in gradients], factor)

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        whole = ((name, each.full_tensor() if isinstance(each, DTensor) else each) for name, each in tensors.items())
        return {name: each.cpu() for name, each in whole if self.ranks.is_first}

    def writer(self, written: Callable[[Path], None]) -> Writer:
        return part_files.Writer(self.ranks, written)

    def restore(self, state: State, loaded: Loaded) -> None:
        """Fill a state with its parts, which any number of ranks wrote."""
        if PARTS not in loaded.content:
            raise InputError(other_way(loaded))
        part_files.read(state, loaded)


def is_available() -> bool:
    """Whether torch can keep parameters whole in a model that is shared out, as it can from 2.7 on."""
    return "ignored_params" in inspect.signature(fully_shard).parameters


class _Parts:
    """Forward passes that gather each block's parameters when their turn comes, and share its gradients out again."""

    sums = False
    """Whether a rank may redo a micro-batch while others wait: none may, as all gather parameters in every pass."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        assert isinstance(model, FSDPModule)
        self._model: Any = model
        self._ranks = ranks

    def fit_to(self, bandwidth: int) -> None:
        """Nothing: what a bandwidth changes is not shared out."""

    def __call__(self, shown: Any) -> Any:
        return self._model(shown)

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[float]:
        self._model.set_requires_gradient_sync(last)
        # FSDP takes means.
        yield float(self._ranks.size)
        if last:
            whole = [parameter for parameter in self._model.parameters() if not isinstance(parameter, DTensor)]
            self._ranks.average([parameter.grad for parameter in whole if parameter.grad is not None])


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


def _square(tensors: list[Tensor], device: torch.device) -> Tensor:
    if not tensors:
        return torch.zeros((), device=device)
    return torch.stack([norm.float() for norm in torch._foreach_norm(tensors)]).square().sum()


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Modules that follow one another in a list or a sequence and have parts of their own."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            for part in module:
                has_parts = any(True for _ in part.children()) and any(True for _ in part.parameters())
                if has_parts and not isinstance(part, nn.ModuleList | nn.ModuleDict):
                    yield part
