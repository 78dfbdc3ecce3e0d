"""Separable resampling of image tensors by two matrix products, one per axis, and Lanczos down-sampling."""

import contextlib
import functools
import operator
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_CACHED_MATRICES = 64
# Asked once, here: in a compiled graph torch 2.6 cannot be asked.
_AUTOCAST_DEVICES = frozenset(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))
_LANCZOS_LOBES = 3


def check_images(images: Tensor) -> tuple[int, int]:
    """Return height and width of `(..., H, W)` images of real floats; raise ValueError for anything else."""
    if not isinstance(images, Tensor):
        raise ValueError(
            f"images must be a tensor, got {type(images).__name__}: an array becomes one by "
            "torch.from_numpy(images).float()"
        )
    if images.dtype not in _FLOAT_DTYPES:
        raise ValueError(
            f"images have dtype {images.dtype}: convert them to float first, for example "
            "images.float() / 255 (float16, bfloat16, float32 and float64 are taken)"
        )
    if images.ndim < 2:
        raise ValueError(f"images must have shape (..., H, W), got {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if height < 1 or width < 1:
        raise ValueError(f"images must have at least one pixel, got shape {tuple(images.shape)}")
    return height, width


def check_side(side: int, name: str, height: int, width: int) -> int:
    """Return a side in pixels as an int; raise ValueError unless it is a whole number in [1, min(H, W)]."""
    try:
        side = operator.index(side)
    except TypeError:
        raise ValueError(f"{name} must be a whole number of pixels, got {side!r}") from None
    if not 1 <= side <= min(height, width):
        raise ValueError(
            f"{name} {side} does not fit images of {height} x {width} pixels: choose it from 1 to {min(height, width)}"
        )
    return side


def constant_matrix(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep the last 64 matrices that `build` makes, per dtype, device and its own arguments.

    Args:
        build: takes a dtype to compute in, a device and hashable arguments.

    Returns:
        A function of a dtype, a device and the arguments. Whatever the dtype, it computes in float64.
    """

    def make(dtype: torch.dtype, device: torch.device, *args: object) -> Tensor:
        # Autograd refuses inference tensors: a matrix first made in inference mode must serve training later.
        with torch.inference_mode(False):
            # On the CPU, since some devices have no float64.
            return build(torch.float64, torch.device("cpu"), *args).to(dtype).to(device)

    cached = functools.lru_cache(maxsize=_CACHED_MATRICES)(make)

    @functools.wraps(build)
    def matrix(dtype: torch.dtype, device: torch.device, *args: object) -> Tensor:
        if torch.compiler.is_compiling():
            # A graph cannot look into the cache. It makes its own matrix, where it needs it.
            precision = torch.float32 if device.type == "mps" else torch.float64
            return build(precision, device, *args).to(dtype)
        # A matrix without data, made under FakeTensorMode, must not outlive that mode.
        real = type(torch.empty(0, device="cpu")) is Tensor
        return (cached if real else make)(dtype, device, *args)

    return matrix


def separable_product(images: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """Compute `rows @ images @ columns.T` in the dtype of the images; None stands for the identity.

    Args:
        images: `(..., H, W)`.
        rows: `(H', H)`, same dtype and device.
        columns: `(W', W)`, same dtype and device.

    Returns:
        `(..., H', W')`.
    """
    device_type = images.device.type
    # An autocast region would turn float32 images into bfloat16 here, without a word.
    without_autocast = (
        torch.autocast(device_type, enabled=False) if device_type in _AUTOCAST_DEVICES else contextlib.nullcontext()
    )
    with without_autocast:
        if rows is not None:
            images = torch.matmul(rows, images)
        if columns is not None:
            images = F.linear(images, columns)
    return images


@constant_matrix
def _lanczos_matrix(dtype: torch.dtype, device: torch.device, size: int, new_size: int) -> Tensor:
    scale = size / new_size
    centres = (torch.arange(new_size, dtype=dtype, device=device) + 0.5) * scale
    pixels = torch.arange(size, dtype=dtype, device=device) + 0.5
    distance = (pixels - centres[:, None]) / scale
    window = torch.sinc(distance / _LANCZOS_LOBES) * (distance.abs() < _LANCZOS_LOBES)
    weights = torch.sinc(distance) * window
    return weights / weights.sum(dim=1, keepdim=True)


def downsample(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Down-sample images with an anti-aliased Lanczos filter (a = 3).

    The efficient form of the low-frequency crop in EfficientTrain++, Section 5.2: a windowed sinc filter,
    evaluated only where a pixel of the output lies. Pixel centres are at half-integers and weights at the
    border are normalised, as in Pillow's `LANCZOS`. Some energy from above the cut-off leaks in, unlike in
    :func:`upchirp.low_frequency_crop`.

    Args:
        images: `(..., H, W)`, float16, bfloat16, float32 or float64; any value range, which the filter's
            negative lobes may overshoot.
        size: side in pixels of the square output, or its `(height, width)`; at most `H` and `W`.

    Returns:
        `(..., height, width)` in the dtype of the images. Half-precision images are multiplied by matrices
        rounded to their own dtype; see :func:`upchirp.low_frequency_crop` for what that costs.

    Raises:
        ValueError: if the images are not floating-point tensors with a height and a width, or the size is not
            a whole number, is below 1 or exceeds the images' size.

    Example:
        >>> import torch, upchirp
        >>> upchirp.downsample(torch.ones(2, 3, 224, 224), 96).shape
        torch.Size([2, 3, 96, 96])
        >>> upchirp.downsample(torch.ones(2, 3, 90, 160), (45, 80)).shape
        torch.Size([2, 3, 45, 80])
    """
    height, width = check_images(images)
    if isinstance(size, list) or (isinstance(size, tuple) and len(size) != 2):
        raise ValueError(f"size must be a whole number or a pair (height, width), got {size!r}")
    new_height, new_width = size if isinstance(size, tuple) else (size, size)
    new_height = check_side(new_height, "height", height, height)
    new_width = check_side(new_width, "width", width, width)
    if (new_height, new_width) == (height, width):
        return images.clone()
    dtype, device = images.dtype, images.device
    return separable_product(
        images,
        None if new_height == height else _lanczos_matrix(dtype, device, height, new_height),
        None if new_width == width else _lanczos_matrix(dtype, device, width, new_width),
    )
