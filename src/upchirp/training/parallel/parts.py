"""Parts of a model on every rank: how FSDP2 shares it out, passes through it, and clips its gradients."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from upchirp.training.parallel.local import local
from upchirp.training.parallel.ranks import Ranks


def share_out(model: nn.Module, whole: Iterable[str], device: torch.device, ranks: Ranks) -> None:
    """Share a model's parameters out over the ranks, in place: block by block, then what is left.

    Args:
        model: on any device, its parameters contiguous.
        whole: names of parameters that every rank keeps whole, as they are resized when the bandwidth changes.
        device: where the ranks compute.
        ranks: all of them.
    """
    mesh = init_device_mesh(device.type, (ranks.size,))
    kept = {model.get_parameter(name) for name in whole}
    for module in [*reversed(list(_blocks(model))), model]:
        fully_shard(module, mesh=mesh, ignored_params=kept)


def is_available() -> bool:
    """Whether torch can keep parameters whole in a sharded model, as it can from 2.7 on."""
    return "ignored_params" in inspect.signature(fully_shard).parameters


class Parts:
    """Forward passes that gather each block's parameters when their turn comes, and share its gradients out again.

    The counterpart of `Replicas`; what it sums and promises is the same.

    Args:
        model: after `share_out`.
        ranks: who holds a part.
    """

    sums = False
    """Whether a rank may redo a micro-batch while others wait: none may, as all gather parameters in every pass."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        assert isinstance(model, FSDPModule)
        self._model: Any = model
        self._ranks = ranks

    def fit_to(self, bandwidth: int) -> None:
        """Nothing: what a bandwidth changes is not shared out."""

    def __call__(self, shown: Any) -> Any:
        """What the model returns for images (N, 3, B, B), or for what else a task shows it."""
        return self._model(shown)

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[float]:
        """One micro-batch, forward and backward; with the last one of a step the gradients are summed over the ranks.

        Gives the factor that the loss needs, as FSDP takes means.
        """
        self._model.set_requires_gradient_sync(last)
        yield float(self._ranks.size)
        if last:
            whole = [parameter for parameter in self._model.parameters() if not isinstance(parameter, DTensor)]
            self._ranks.average([parameter.grad for parameter in whole if parameter.grad is not None])


def split_groups(optimizer: torch.optim.Optimizer) -> None:
    """Give sharded parameters and whole ones groups of their own: an update takes many of one kind at once."""
    groups = []
    for group in optimizer.param_groups:
        for sharded in (True, False):
            if parameters := [each for each in group["params"] if isinstance(each, DTensor) is sharded]:
                groups.append({**group, "params": parameters})
    optimizer.param_groups[:] = groups


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], most: float, ranks: Ranks) -> None:
    """Scale all gradients so that their common norm is at most `most`."""
    gradients = [each.grad for each in parameters if each.grad is not None]
    parts = [local(each) for each in gradients if isinstance(each, DTensor)]
    whole = [each for each in gradients if not isinstance(each, DTensor)]
    squares = ranks.add(_square(parts, gradients[0].device)) + _square(whole, gradients[0].device)
    factor = (most / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([local(each) for each in gradients], factor)


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
