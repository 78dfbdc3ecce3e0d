"""The ranks that a launcher started, and how they hold a training state."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from upchirp.errors import InputError
from upchirp.training.parallel.parallel import Parallel
from upchirp.training.parallel.ranks import open_ranks
from upchirp.training.parallel.sharded import Sharded
from upchirp.training.parallel.whole import Alone, Replicated


@contextmanager
def open_parallel(
    kind: Literal["ddp", "fsdp"], device: torch.device, *, deterministic: bool = False, sync_bn: bool = False
) -> Iterator[Parallel]:
    """How this process and the others that its launcher started hold what they train, each on a device.

    Raises:
        InputError: as `open_ranks` does; or batch norms are to count together where torch cannot let them.
    """
    if sync_bn and device.type != "cuda":
        raise InputError(f"`sync_bn` takes CUDA devices, one for each rank, and this is {device.type}: leave it out")
    with open_ranks(even_one=kind == "fsdp") as ranks:
        if kind == "fsdp":
            yield Sharded(ranks, deterministic=deterministic)
        elif ranks.size > 1:
            yield Replicated(ranks, deterministic=deterministic, sync_bn=sync_bn)
        else:
            yield Alone()
