"""A device's memory that runs out: how errors say so, how many images are taken then, and what is put back."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from upchirp.errors import InputError

_OUT_OF_MEMORY = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory",
)


class OutOfMemory(InputError):
    """The device's memory does not hold even the smallest micro-batch."""


def forget_activations(model: nn.Module) -> None:
    """Let a model compute its activations anew in the backward pass, by `set_grad_checkpointing` as timm's have it.

    Raises:
        InputError: it has none, or refuses.
    """
    setter: Any = getattr(model, "set_grad_checkpointing", None)
    try:
        if setter is None:
            raise NotImplementedError("it has no set_grad_checkpointing")
        setter(True)
    except (AssertionError, NotImplementedError) as error:
        raise InputError(f"{type(model).__name__} does not take `grad_checkpointing`: {error}") from error


class OutOfMemoryInSum(Exception):
    """The device's memory ran out in a backward pass whose gradients other ranks wait for."""


class MicroBatches:
    """The most images that are computed at once at each bandwidth; memory that runs out halves it.

    >>> micro_batches = MicroBatches({96: 192, 224: 48})
    >>> micro_batches.halve(224, rows=48, group=8)
    24
    >>> micro_batches.sizes, micro_batches.reduced
    ({96: 192, 224: 24}, {224: 24})

    Args:
        sizes: by bandwidth; where one is left out, a training takes batches as they come.
        least: no fewer are tried.
    """

    def __init__(self, sizes: Mapping[int, int] | None = None, *, least: int = 1) -> None:
        self.sizes = dict(sizes or {})
        self.reduced: dict[int, int] = {}
        """To what memory that ran out has brought them."""
        self._least = least

    def reduce(self, to: Mapping[int, int]) -> None:
        """Take no more than so many images at some bandwidths, as memory holds no more."""
        for bandwidth, size in to.items():
            self.sizes[bandwidth] = self.reduced[bandwidth] = min(size, self.sizes.get(bandwidth, size))

    def halve(self, bandwidth: int, *, rows: int, group: int) -> int:
        """Take half as many as did not fit, in whole mixing groups; returns how many.

        Raises:
            OutOfMemory: there is no half of it.
        """
        before = min(rows, self.sizes.get(bandwidth, rows))
        half = before // group // 2 * group
        if half < max(self._least, 1):
            images = f"{before} image{'' if before == 1 else 's'}"
            raise OutOfMemory(
                f"out of memory at {bandwidth} px with a micro-batch of {images}, which cannot be halved: take a "
                "smaller model or final size, or free memory that others use"
            )
        self.reduce({bandwidth: half})
        return half


class Buffers:
    """A copy of a model's buffers, such as the statistics of batch norm, to go back to.

    >>> norm = nn.BatchNorm1d(2)
    >>> buffers = Buffers()
    >>> buffers.keep(norm)
    >>> _ = norm(torch.ones(4, 2))
    >>> buffers.restore()
    >>> norm.running_mean.tolist(), norm.num_batches_tracked.item()
    ([0.0, 0.0], 0)
    """

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []
        self._copies: list[torch.Tensor] = []

    @torch.no_grad()
    def keep(self, model: nn.Module) -> None:
        """Copy the buffers as they are now."""
        # By type, as torch copies tensors of one type in few launches, and others one by one.
        buffers = sorted(model.buffers(), key=lambda buffer: str(buffer.dtype))
        same = len(buffers) == len(self._buffers) and all(map(_alike, buffers, self._copies))
        self._buffers = buffers
        if not same:
            self._copies = [buffer.clone() for buffer in buffers]
            return
        pairs = zip(self._copies, buffers, strict=True)
        for _, alike in itertools.groupby(pairs, key=lambda pair: pair[0].dtype):
            copies, originals = zip(*alike, strict=True)
            torch._foreach_copy_(copies, originals)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was kept."""
        for buffer, copy in zip(self._buffers, self._copies, strict=True):
            # A constant may be a view that repeats its memory, which cannot be written.
            if not torch.equal(buffer, copy):
                buffer.copy_(copy)


def ran_out(error: RuntimeError) -> bool:
    """Whether an error says that memory ran out: torch's own, and those of libraries that allocate for themselves.

    >>> ran_out(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))
    True
    >>> ran_out(RuntimeError("shapes do not fit"))
    False
    """
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def device_name(device: torch.device) -> str:
    """What kind of device it is; another one may have another memory."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def free_memory(device: torch.device) -> None:
    """Give memory that nothing uses any more back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
