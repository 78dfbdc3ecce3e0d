"""The ranks that a launcher started, and how they hold a training state."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from upchirp.training.parallel.parallel import Parallel
from upchirp.training.parallel.ranks import open_ranks
from upchirp.training.parallel.sharded import Sharded
from upchirp.training.parallel.whole import Alone, Replicated


@contextmanager
def open_parallel(kind: Literal["ddp", "fsdp"], *, deterministic: bool = False) -> Iterator[Parallel]:
    """How this process and the others that its launcher started hold what they train.

    Raises:
        InputError: as `open_ranks` does.
    """
    with open_ranks(even_one=kind == "fsdp") as ranks:
        if kind == "fsdp":
            yield Sharded(ranks, deterministic=deterministic)
        elif ranks.size > 1:
            yield Replicated(ranks, deterministic=deterministic)
        else:
            yield Alone()
