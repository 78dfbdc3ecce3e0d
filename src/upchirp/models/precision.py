"""Mixed precision that a device has instructions for, and whose gradients are right on every CPU."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, Literal

import torch
from torch.overrides import TorchFunctionMode


def computes(device: torch.device | str, dtype: torch.dtype) -> bool:
    """Whether a device has instructions for a 16-bit number format; others emulate it, at a fraction of the speed.

    A CPU without them takes 8 to 12 times as long for a training step in bfloat16 as in float32
    (benchmarks/results/precision.json). GPUs before NVIDIA's Ampere have float16 only.

    >>> computes("cpu", torch.float16)
    False
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    return kind != "cpu" or (dtype == torch.bfloat16 and _processor_has_bfloat16())


@cache
def _processor_has_bfloat16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN takes any AVX-512 for enough, and emulates.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def autocast(device: torch.device | str, dtype: torch.dtype | Literal["auto"] | None = "auto") -> Iterator[None]:
    """`torch.autocast`, with the convolutions in float32 whose gradients a CPU would fill with unwritten memory.

    On a CPU, convolutions whose stride is larger than their map get wrong weight gradients in bfloat16: the parts of
    the kernel that see only padding must get 0, and get whatever was in memory before, NaN included (oneDNN with
    AVX-512; ResNet-18 at 32 pixels has such convolutions in its last stage). These are computed in float32, whatever
    the CPU; they are the cheapest of a network. All others, and other devices, are as with `torch.autocast`, and the
    model is left as it is.

    Args:
        device: where the model is.
        dtype: number format of mixed precision; none computes as the model's parameters are. `auto` is bfloat16 where
            the device computes it, else none: float16 would need a scaled loss.

    >>> convolution = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1)
    >>> with autocast("cpu", torch.bfloat16):
    ...     outputs = convolution(torch.randn(2, 8, 1, 1))
    >>> outputs.dtype
    torch.bfloat16
    >>> outputs.float().sum().backward()
    >>> convolution.weight.grad[:, :, 0].abs().sum()  # the upper row of the kernel sees only padding
    tensor(0.)
    """
    kind = torch.device(device).type
    if dtype == "auto":
        dtype = torch.bfloat16 if computes(device, torch.bfloat16) else None
    if dtype is None:
        yield
        return
    with torch.autocast(kind, dtype), _Float32WhereStridesLeap(dtype) if kind == "cpu" else nullcontext():
        yield


class _Float32WhereStridesLeap(TorchFunctionMode):
    """Computes convolutions in float32 whose stride is larger than their map; the result has the type asked for.

    A mode and no hook on modules, so that neither the model nor what is exported or compiled of it knows, and
    convolutions that a module calls as functions count too.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (func is torch.conv2d or func is torch.conv1d) and torch.is_autocast_enabled("cpu"):
            return self._convolve(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _convolve(
        self,
        convolution: Any,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> torch.Tensor:
        if not _leaps(stride, input.shape[2 - weight.ndim :]):
            result: torch.Tensor = convolution(input, weight, bias, stride, padding, dilation, groups)
            return result
        with torch.autocast("cpu", enabled=False):
            wide = [None if tensor is None else tensor.float() for tensor in (input, weight, bias)]
            result = convolution(*wide, stride, padding, dilation, groups)
        return result.to(self._dtype)


def _leaps(stride: int | Sequence[int], sides: Sequence[int]) -> bool:
    strides = [stride] * len(sides) if isinstance(stride, int) else [*stride] * (len(sides) // len(stride))
    return any(step > side for step, side in zip(strides, sides, strict=True))
