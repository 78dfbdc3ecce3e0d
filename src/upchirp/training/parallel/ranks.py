"""The processes that train together, and what they tell each other. torchrun, or another launcher, starts them."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore

from upchirp.errors import InputError, first_line
from upchirp.training.parallel.launcher import world_size

Value = TypeVar("Value")

# gloo has no exception types of its own.
_LOST = re.compile(r"gloo/transport|Connection (?:closed|reset) by peer|Timed out waiting \d+ms for (?:recv|send)")
_DROP_SECONDS = 0.05


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one model. One process alone is the default, and talks to nobody.

    Every method but the properties is called by all ranks, in the same order.

    >>> Ranks().is_first, Ranks().gather("value"), Ranks().largest(3, 4)
    (True, ['value'], (3, 4))
    """

    rank: int = 0
    """Number of this process, from 0."""
    size: int = 1
    """How many processes there are."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What `make` returns on the first rank, on every rank.

        Raises:
            InputError: what it raised there, on every rank.
        """
        if self.size == 1:
            return make()
        outcome: list[Any] = [None]
        if self.is_first:
            outcome = [_outcome(make)]
        dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
        value: Value = _opened(outcome[0])
        return value

    def together(self, make: Callable[[], Value]) -> Value:
        """What `make` returns here, once it has worked everywhere; nothing in it may talk to other ranks.

        Raises:
            InputError: what the lowest rank raised that failed, on every rank.
        """
        if self.size == 1:
            return make()
        outcome: Any = _outcome(make)
        for error in self.gather(outcome if isinstance(outcome, InputError) else None):
            _opened(error)
        value: Value = outcome
        return value

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """The largest of all ranks' numbers, one by one; only hosts wait for each other, no accelerator does."""
        if self.size == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tuple(tensor.tolist())

    def add(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over the ranks, in place, on its device; returns it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors by their means over the ranks, in place."""
        if self.size > 1 and tensors:
            # In one message: each has a price of its own.
            means = self.add(torch.cat([tensor.flatten() for tensor in tensors])) / self.size
            parts = torch.split(means, [tensor.numel() for tensor in tensors])
            torch._foreach_copy_(list(tensors), [part.view_as(own) for part, own in zip(parts, tensors, strict=True)])

    @torch.no_grad()
    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by the first rank's, in place."""
        if self.size > 1:
            for tensor in tensors:
                values = tensor.contiguous()
                dist.broadcast(values, src=0)
                if not torch.equal(values, tensor):
                    tensor.copy_(values)

    def latest(self, values: Tensor, times: Tensor) -> Tensor:
        """Of each element the value of the rank with the largest time; an element that has none (-1) anywhere stays.

        Args:
            values: float32, (N,).
            times: int64, (N,), on the same device; no two ranks have the same time but -1.
        """
        if self.size == 1:
            return values
        last = times.clone()
        dist.all_reduce(last, dist.ReduceOp.MAX)
        own = (times == last) & (times >= 0)
        # Bits instead of values: a sum over ranks of infinite or undefined losses would be another number.
        bits = torch.where(own, values.view(torch.int32), 0)
        return torch.where(last >= 0, self.add(bits).view(torch.float32), values)


@contextmanager
def open_ranks(*, even_one: bool = False) -> Iterator[Ranks]:
    """The ranks that the launcher started (RANK, WORLD_SIZE and their address in the environment), or this one alone.

    Tensors on the host go by Gloo, those on a CUDA device by NCCL. A process group that is open already is used and
    left open. `even_one` opens the group for a single rank too, which torchrun must have started.

    Raises:
        InputError: no torchrun where it is needed, or contact with another rank was lost, as when it failed.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if world_size() == 1 and not even_one:
        yield Ranks()
        return
    if "MASTER_ADDR" not in os.environ:
        raise InputError("`parallel='fsdp'` needs torchrun: torchrun --nproc-per-node N -m upchirp train ...")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, **_meeting_point())
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot reach the other ranks ({first_line(error)}): start all of them with torchrun"
        ) from error
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _LOST.search(str(error)):
            raise
        raise InputError(
            "lost contact with another rank, which has failed or was ended: its own message says why, and how to go on"
        ) from error
    finally:
        # Old torch (2.6 does, 2.14 does not; pytorch/pytorch#154976) keeps the GIL while the group joins Gloo's
        # threads, which need it to drop the last tensors they were given: a deadlock unless they have done so.
        time.sleep(_DROP_SECONDS)
        dist.destroy_process_group()


def _meeting_point() -> dict[str, Any]:
    """Where ranks find each other; by default as the environment says.

    torchrun keeps one store over all its attempts, in which a rank of this attempt may read where one of the last, long
    gone, was to be found. So each attempt gets names of its own. (On several nodes TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    has torchrun do it; see docs/distributed.md.)
    """
    store = _agent_store()
    # Agents of several nodes count their attempts apart.
    if store is None or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return {}
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {
        "store": PrefixStore(f"upchirp/attempt/{attempt}", store),
        "rank": int(os.environ["RANK"]),
        "world_size": world_size(),
    }


def _agent_store() -> TCPStore | None:
    """The store of torchrun's agent, if it started this process."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def says_first(line: str) -> bool:
    """Whether no other rank has said the line before, in this attempt of torchrun's; it counts as said from now on."""
    if world_size() == 1:
        return True
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store = _agent_store()
        return store is None or store.add(f"upchirp/said/{attempt}/{line}", 1) == 1
    except (RuntimeError, KeyError, ValueError):
        # Twice is better than never.
        return True


def _outcome(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except InputError as error:
        return error


def _opened(outcome: Any) -> Any:
    if isinstance(outcome, InputError):
        raise outcome
    return outcome
